//! One picture from a PNG or JPEG file, and the few changes that fit it to a network.

use std::io::Cursor;
use std::path::Path;

use png::{ColorType, Transformations};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::error::Error;

/// The most bytes of picture that a byte of file may promise. Deflate cannot give more than 1032, and
/// JPEG spends at least a bit on a block of 64 pixels.
const MOST_SWELLING: u64 = 2048;
/// The most pixels a picture may have, so that a small file cannot ask for all memory.
const MOST_PIXELS: u64 = 1 << 28;

/// A picture of bytes, `C H W`, with one channel (grey) or three (red, green, blue).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// 1 or 3.
    pub channels: usize,
    /// The number of rows.
    pub height: usize,
    /// The number of columns.
    pub width: usize,
    /// `C H W`, 0 to 255.
    pub pixels: Vec<u8>,
}

impl Image {
    /// Reads a PNG or JPEG file: which of the two, its first bytes say. Sixteen bits are cut to eight, palettes are
    /// looked up, transparency is dropped; a rotation noted by a camera is not carried out.
    ///
    /// # Errors
    /// If the file cannot be read, is neither, or is damaged.
    pub fn open(path: &Path) -> Result<Image, Error> {
        let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
        Image::decode(&bytes, &path.display().to_string())
    }

    /// The picture in these bytes of a PNG or JPEG file that messages call `file`.
    ///
    /// # Errors
    /// If they are neither, or damaged.
    pub fn decode(bytes: &[u8], file: &str) -> Result<Image, Error> {
        match bytes {
            [0x89, b'P', b'N', b'G', ..] => decode_png(bytes, file),
            [0xff, 0xd8, ..] => decode_jpeg(bytes, file),
            _ => {
                let head: Vec<String> = bytes.iter().take(4).map(|b| format!("{b:02x}")).collect();
                let found = format!("{} bytes that begin with {}", bytes.len(), head.join(" "));
                Err(Error::format(file, found, "a PNG or JPEG picture"))
            }
        }
    }

    /// From rows of pixels that hold `depth` values each, of which the first one or three are kept.
    fn from_rows(depth: usize, height: usize, width: usize, rows: &[u8]) -> Image {
        let channels = if depth < 3 { 1 } else { 3 };
        let plane = |c| rows.chunks_exact(depth).map(move |pixel| pixel[c]);
        Image { channels, height, width, pixels: (0..channels).flat_map(plane).collect() }
    }

    /// The same picture with one channel or three. Grey is repeated; colour becomes
    /// `0.299 red + 0.587 green + 0.114 blue`, rounded.
    ///
    /// # Panics
    /// If `channels` is neither 1 nor 3.
    #[track_caller]
    pub fn with_channels(&self, channels: usize) -> Image {
        let pixels = match (self.channels, channels) {
            (1, 3) => self.pixels.repeat(3),
            (3, 1) => {
                let size = self.height * self.width;
                let [r, g, b] = [0, 1, 2].map(|c| &self.pixels[c * size..][..size]);
                let grey = |i: usize| {
                    let [r, g, b] = [r[i], g[i], b[i]].map(u32::from);
                    ((299 * r + 587 * g + 114 * b + 500) / 1000) as u8
                };
                (0..size).map(grey).collect()
            }
            (_, 1 | 3) => self.pixels.clone(),
            _ => panic!("with_channels: a picture has 1 or 3 channels, not {channels}"),
        };
        Image { channels, pixels, ..*self }
    }

    /// The same picture at another size: bilinear, and where it shrinks, each new pixel is the mean of all the old
    /// ones beneath it, weighted by a triangle. No part is cut off, so the proportions may change.
    ///
    /// # Panics
    /// If a size is zero.
    #[track_caller]
    pub fn resize(&self, height: usize, width: usize) -> Image {
        assert!(height > 0 && width > 0, "resize: {height} x {width} is no size");
        let (down, across) = (taps(self.height, height), taps(self.width, width));
        let mut pixels = Vec::with_capacity(self.channels * height * width);
        for plane in self.pixels.chunks_exact(self.height * self.width) {
            let rows = plane.chunks_exact(self.width);
            // Columns first: the rows keep their number and get their new width.
            let wide: Vec<f32> = rows
                .flat_map(|row| across.iter().map(|tap| tap.sum(|i| f32::from(row[i]))))
                .collect();
            for tap in &down {
                let pixel = |j| tap.sum(|i| wide[i * width + j]).round() as u8;
                pixels.extend((0..width).map(pixel));
            }
        }
        Image { channels: self.channels, height, width, pixels }
    }
}

/// The old pixels that one new pixel is a mean of.
struct Tap {
    first: usize,
    weights: Vec<f32>,
}

impl Tap {
    fn sum(&self, value: impl Fn(usize) -> f32) -> f32 {
        self.weights.iter().enumerate().map(|(k, w)| w * value(self.first + k)).sum()
    }
}

/// For each of `new` pixels its taps among `old` ones: a triangle around its centre, as wide as
/// the larger of an old and a new pixel on either side, with weights that sum to one.
fn taps(old: usize, new: usize) -> Vec<Tap> {
    let step = old as f64 / new as f64;
    let reach = step.max(1.0);
    let tap = |i: usize| {
        let centre = (i as f64 + 0.5) * step - 0.5;
        let first = (centre - reach).ceil().max(0.0) as usize;
        let last = ((centre + reach).floor() as usize).min(old - 1);
        let weights: Vec<f64> =
            (first..=last).map(|j| (1.0 - (j as f64 - centre).abs() / reach).max(0.0)).collect();
        let sum: f64 = weights.iter().sum();
        Tap { first, weights: weights.iter().map(|w| (w / sum) as f32).collect() }
    };
    (0..new).map(tap).collect()
}

/// Refuses a size that a file of this length cannot hold.
fn check_size(height: usize, width: usize, bytes: &[u8], file: &str) -> Result<(), Error> {
    let pixels = height as u64 * width as u64;
    if pixels == 0 || pixels > MOST_PIXELS || 3 * pixels > MOST_SWELLING * bytes.len() as u64 {
        let found = format!("a picture of {height} x {width} pixels");
        return Err(Error::format(file, found, format!("one that {} bytes can hold", bytes.len())));
    }
    Ok(())
}

fn decode_png(bytes: &[u8], file: &str) -> Result<Image, Error> {
    let bad = |e: png::DecodingError| Error::format(file, e.to_string(), "a whole PNG picture");
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(Transformations::normalize_to_color8());
    let header = decoder.read_header_info().map_err(bad)?;
    let (height, width) = (header.height as usize, header.width as usize);
    check_size(height, width, bytes, file)?;
    let mut reader = decoder.read_info().map_err(bad)?;
    let mut rows = vec![0; reader.output_buffer_size().unwrap_or(0)];
    let info = reader.next_frame(&mut rows).map_err(bad)?;
    let depth = match info.color_type {
        ColorType::Grayscale => 1,
        ColorType::GrayscaleAlpha => 2,
        ColorType::Rgb => 3,
        ColorType::Rgba => 4,
        ColorType::Indexed => return Err(Error::format(file, "a palette", "colours")),
    };
    let (frame_height, frame_width) = (info.height as usize, info.width as usize);
    if (frame_height, frame_width) != (height, width) || rows.len() != depth * height * width {
        let found = format!("a frame of {frame_height} x {frame_width}");
        return Err(Error::format(file, found, format!("the picture's {height} x {width}")));
    }
    Ok(Image::from_rows(depth, height, width, &rows))
}

fn decode_jpeg(bytes: &[u8], file: &str) -> Result<Image, Error> {
    let bad = |e: String| Error::format(file, e, "a whole JPEG picture");
    let options = DecoderOptions::default().set_strict_mode(true);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|e| bad(e.to_string()))?;
    let (width, height) = decoder.dimensions().unwrap_or((0, 0));
    check_size(height, width, bytes, file)?;
    let (space, depth) = match decoder.input_colorspace() {
        Some(ColorSpace::Luma) => (ColorSpace::Luma, 1),
        _ => (ColorSpace::RGB, 3),
    };
    decoder.set_options(options.jpeg_set_out_colorspace(space));
    let rows = decoder.decode().map_err(|e| bad(e.to_string()))?;
    if rows.len() != depth * height * width {
        return Err(bad(format!("{} bytes for {height} x {width} pixels", rows.len())));
    }
    Ok(Image::from_rows(depth, height, width, &rows))
}

#[cfg(test)]
mod tests {
    use jpeg_encoder::{Encoder, SamplingFactor};
    use proptest::prelude::*;

    use super::*;

    const COLOUR: [u8; 18] = [9, 8, 7, 6, 5, 4, 30, 20, 10, 60, 50, 40, 255, 0, 128, 1, 2, 3];

    fn png(color: ColorType, depth: png::BitDepth, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![];
        let mut encoder = png::Encoder::new(&mut out, 3, 2);
        encoder.set_color(color);
        encoder.set_depth(depth);
        encoder.set_palette(COLOUR.to_vec());
        encoder.write_header().unwrap().write_image_data(bytes).unwrap();
        out
    }

    fn jpeg(progressive: bool) -> Vec<u8> {
        let mut out = vec![];
        let mut encoder = Encoder::new(&mut out, 100);
        encoder.set_sampling_factor(SamplingFactor::F_1_1);
        encoder.set_progressive(progressive);
        let flat: Vec<u8> = [200, 100, 50].repeat(20 * 12);
        encoder.encode(&flat, 20, 12, jpeg_encoder::ColorType::Rgb).unwrap();
        out
    }

    #[test]
    fn every_kind_of_png_becomes_planes() {
        let open = |color, depth, bytes: &[u8]| {
            Image::decode(&png(color, depth, bytes), "x.png").unwrap().pixels
        };
        use png::BitDepth::{Eight, One, Sixteen};
        assert_eq!(open(ColorType::Grayscale, Eight, &[1, 2, 3, 4, 5, 6]), [1, 2, 3, 4, 5, 6]);
        assert_eq!(open(ColorType::Grayscale, One, &[0xa0, 0x40]), [255, 0, 255, 0, 255, 0]);
        let wide: Vec<u8> = (0..12).collect();
        assert_eq!(open(ColorType::Grayscale, Sixteen, &wide), [0, 2, 4, 6, 8, 10]);
        assert_eq!(open(ColorType::GrayscaleAlpha, Eight, &wide), [0, 2, 4, 6, 8, 10]);
        let planes = [9, 6, 30, 60, 255, 1, 8, 5, 20, 50, 0, 2, 7, 4, 10, 40, 128, 3];
        assert_eq!(open(ColorType::Rgb, Eight, &COLOUR), planes);
        assert_eq!(open(ColorType::Indexed, Eight, &[0, 1, 2, 3, 4, 5]), planes);
        let alpha: Vec<u8> = COLOUR.chunks(3).flat_map(|p| [p[0], p[1], p[2], 99]).collect();
        assert_eq!(open(ColorType::Rgba, Eight, &alpha), planes);
    }

    #[test]
    fn a_jpeg_becomes_planes() {
        for progressive in [false, true] {
            let image = Image::decode(&jpeg(progressive), "x.jpg").unwrap();
            assert_eq!((image.channels, image.height, image.width), (3, 12, 20));
            for (plane, value) in image.pixels.chunks(240).zip([200u8, 100, 50]) {
                assert!(plane.iter().all(|p| p.abs_diff(value) <= 3), "{plane:?}");
            }
        }
        let mut bytes = vec![];
        let gradient: Vec<u8> = (0..64).map(|i| i * 4).collect();
        Encoder::new(&mut bytes, 100)
            .encode(&gradient, 8, 8, jpeg_encoder::ColorType::Luma)
            .unwrap();
        let image = Image::decode(&bytes, "x.jpg").unwrap();
        assert_eq!((image.channels, image.pixels.len()), (1, 64));
        assert!(image.pixels.iter().zip(&gradient).all(|(a, b)| a.abs_diff(*b) <= 3));
    }

    #[test]
    fn channels_are_spread_and_joined() {
        let grey = Image { channels: 1, height: 1, width: 2, pixels: vec![5, 6] };
        let colour = grey.with_channels(3);
        assert_eq!(colour.pixels, [5, 6, 5, 6, 5, 6]);
        assert_eq!(colour.with_channels(1), grey);
        let red = Image { channels: 3, height: 1, width: 1, pixels: vec![255, 0, 0] };
        assert_eq!(red.with_channels(1).pixels, [76]);
    }

    /// Rows and columns as Pillow's `BILINEAR` gives them.
    #[test]
    fn resizing_is_bilinear_and_averages() {
        let resize = |pixels: &[u8], h, w, new_h, new_w| {
            let image = Image { channels: 1, height: h, width: w, pixels: pixels.to_vec() };
            assert_eq!(image.resize(h, w), image);
            image.resize(new_h, new_w).pixels
        };
        assert_eq!(resize(&[0, 100], 1, 2, 1, 4), [0, 25, 75, 100]);
        assert_eq!(resize(&[0, 100], 2, 1, 4, 1), [0, 25, 75, 100]);
        assert_eq!(resize(&[7; 35], 5, 7, 3, 2), [7; 6]);
        assert_eq!(resize(&[0, 0, 0, 255, 255, 255, 0, 0], 1, 8, 1, 2), [82, 137]);
        assert_eq!(resize(&[0, 0, 0, 255, 255, 255, 0, 0], 1, 8, 1, 3), [20, 200, 81]);
    }

    #[test]
    fn damage_is_named() {
        let refuse = |bytes: &[u8]| Image::decode(bytes, "x").unwrap_err().to_string();
        assert_eq!(
            refuse(b"GIF89a"),
            "x: found 6 bytes that begin with 47 49 46 38, expected a PNG or JPEG picture"
        );
        let png = png(ColorType::Rgb, png::BitDepth::Eight, &COLOUR);
        assert!(refuse(&png[..png.len() - 20]).ends_with("expected a whole PNG picture"));
        for progressive in [false, true] {
            let jpeg = jpeg(progressive);
            assert!(refuse(&jpeg[..jpeg.len() - 30]).ends_with("expected a whole JPEG picture"));
        }
        // A header that promises 60,000 x 60,000 pixels, its checksum in order.
        let mut huge =
            b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\xea\x60\0\0\xea\x60\x08\0\0\0\0".to_vec();
        let mut crc = flate2::Crc::new();
        crc.update(&huge[12..]);
        huge.extend(crc.sum().to_be_bytes());
        assert_eq!(
            refuse(&huge),
            "x: found a picture of 60000 x 60000 pixels, expected one that 33 bytes can hold"
        );
    }

    proptest! {
        #[test]
        fn damage_never_panics(
            kind in 0..3,
            cut: prop::sample::Index,
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let mut bytes = match kind {
                0 => png(ColorType::Rgb, png::BitDepth::Eight, &COLOUR),
                1 => jpeg(false),
                _ => jpeg(true),
            };
            for (at, with) in flips {
                let at = at.index(bytes.len());
                bytes[at] ^= with;
            }
            bytes.truncate(cut.index(2 * bytes.len()));
            let _ = Image::decode(&bytes, "x");
        }
    }
}
