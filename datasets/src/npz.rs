//! `npz:FILE`: NumPy's archives with the arrays `x_train`, `y_train`, `x_test`, `y_test`.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use npyz::{DType, NpyFile, NpyHeader, TypeChar};
use zip::ZipArchive;

use crate::dataset::{Dataset, Split};
use crate::error::Error;

/// The most classes that labels may name, so that a wild label is an error and not a huge table.
const MOST_CLASSES: usize = 1 << 16;

/// Reads a set from an npz file.
///
/// Images are `N H W`, `N C H W` or `N H W C`, where `C` is 1 or 3: whole numbers from 0 to 255, or floats from 0
/// to 1, which are rounded to the nearest of 256 steps. Labels are whole numbers, `N` or `N 1`; there
/// are as many classes as the largest training label says, named by their numbers.
///
/// # Errors
/// If the file is no such archive, an array is missing or of another type or shape, or a value is out of
/// range.
pub fn open(path: &Path) -> Result<Dataset, Error> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let [train, test] = splits(BufReader::new(file), &name)?;
    let classes = train.labels().max().map_or(0, |label| label as usize + 1);
    let classes = (0..classes).map(|i| i.to_string()).collect();
    Dataset::new(format!("npz:{name}"), train, test, classes)
}

/// The training and the test images of an archive that messages call `file`.
pub(crate) fn splits(archive: impl Read + Seek, file: &str) -> Result<[Split; 2], Error> {
    let mut archive = ZipArchive::new(archive)
        .map_err(|e| Error::format(file, e.to_string(), "a zip archive, as np.savez writes it"))?;
    let mut split = |part: &str| {
        let (shape, pixels) = images(&Array::read(&mut archive, file, &format!("x_{part}"))?)?;
        let y = Array::read(&mut archive, file, &format!("y_{part}"))?;
        let labels = labels(&y, pixels.len() / shape.iter().product::<usize>())?;
        Ok(Split::new(shape, pixels, labels, y.file))
    };
    Ok([split("train")?, split("test")?])
}

/// One array of an archive, still as bytes.
struct Array {
    /// The archive and the array, for messages.
    file: String,
    header: NpyHeader,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl Array {
    fn read(
        archive: &mut ZipArchive<impl Read + Seek>,
        file: &str,
        name: &str,
    ) -> Result<Array, Error> {
        let member = format!("{name}.npy");
        let has: Vec<_> = archive.file_names().flatten().collect();
        if !has.iter().any(|name| *name == member) {
            return Err(Error::format(file, has.join(", "), format!("an array {name}")));
        }
        let file = format!("{file} ({name})");
        // The vector grows with what is really there, whatever the archive says about sizes.
        let mut bytes = vec![];
        archive
            .by_name(&member)
            .map_err(std::io::Error::from)
            .and_then(|mut entry| entry.read_to_end(&mut bytes))
            .map_err(|e| Error::format(&file, e.to_string(), "a whole array"))?;
        let (header, start) = header(&bytes)
            .map_err(|found| Error::format(&file, found, "an array in NumPy's npy format"))?;
        let shape: Vec<usize> = header.shape().iter().map(|&n| n as usize).collect();
        let data = bytes.split_off(start);
        let item = header.dtype().num_bytes().unwrap_or(0);
        let wanted = shape.iter().product::<usize>().checked_mul(item);
        if wanted != Some(data.len()) {
            let found = format!("{} bytes of data", data.len());
            return Err(Error::format(&file, found, format!("{shape:?} items of {item} bytes")));
        }
        Ok(Array { file, header, shape, data })
    }

    fn wrong<T>(&self, found: impl Into<String>, expected: impl Into<String>) -> Result<T, Error> {
        Err(Error::format(&self.file, found, expected))
    }

    /// All items in the order they are stored in, each made from a whole number by `make`.
    fn whole<U>(&self, make: impl Fn(usize, i128) -> Result<U, Error>) -> Result<Vec<U>, Error> {
        match self.kind() {
            Some((TypeChar::Uint, 1)) => self.items::<u8, _, _>(make),
            Some((TypeChar::Uint, 2)) => self.items::<u16, _, _>(make),
            Some((TypeChar::Uint, 4)) => self.items::<u32, _, _>(make),
            Some((TypeChar::Uint, 8)) => self.items::<u64, _, _>(make),
            Some((TypeChar::Int, 1)) => self.items::<i8, _, _>(make),
            Some((TypeChar::Int, 2)) => self.items::<i16, _, _>(make),
            Some((TypeChar::Int, 4)) => self.items::<i32, _, _>(make),
            Some((TypeChar::Int, 8)) => self.items::<i64, _, _>(make),
            _ => self.wrong(format!("type {}", self.header.dtype().descr()), "whole numbers"),
        }
    }

    fn items<T, V, U>(&self, make: impl Fn(usize, V) -> Result<U, Error>) -> Result<Vec<U>, Error>
    where
        T: npyz::Deserialize,
        V: From<T>,
    {
        let bad = |e: String| Error::format(&self.file, e, "readable items");
        let file = NpyFile::with_header(self.header.clone(), &*self.data);
        let items = file.data::<T>().map_err(|e| bad(e.to_string()))?;
        items
            .enumerate()
            .map(|(i, x)| make(i, V::from(x.map_err(|e| bad(e.to_string()))?)))
            .collect()
    }

    fn kind(&self) -> Option<(TypeChar, u64)> {
        match self.header.dtype() {
            DType::Plain(kind) => Some((kind.type_char(), kind.size_field())),
            _ => None,
        }
    }
}

/// The header of an array in NumPy's npy format and the place where its data begins; its sizes are safe to
/// multiply.
///
/// # Errors
/// If there is no such header, or one that no array of plain numbers has: what was found is said.
pub fn header(bytes: &[u8]) -> Result<(NpyHeader, usize), String> {
    // The parser trusts the sizes it reads and multiplies the dimensions unchecked, so both are bounded before it
    // sees them: a header of plain numbers has some hundred bytes, and a product of numbers of d digits in
    // all is below 10^d.
    let (lead, length) = match bytes {
        [_, _, _, _, _, _, 1, _, a, b, ..] => (10, usize::from(u16::from_le_bytes([*a, *b]))),
        [_, _, _, _, _, _, 2 | 3, _, a, b, c, d, ..] => {
            (12, u32::from_le_bytes([*a, *b, *c, *d]) as usize)
        }
        _ => return Err(format!("{} bytes without a header", bytes.len())),
    };
    let start = lead + length;
    if length > 1024 || start > bytes.len() {
        return Err(format!("a header of {length} bytes in an array of {}", bytes.len()));
    }
    let digits = bytes[lead..start].iter().filter(|b| b.is_ascii_digit()).count();
    if digits > 18 {
        return Err(format!("a header with {digits} digits"));
    }
    let header = NpyHeader::from_reader(bytes).map_err(|e| e.to_string())?;
    Ok((header, start))
}

/// Channels, height, width, and the pixels in the order `N C H W`.
fn images(x: &Array) -> Result<([usize; 3], Vec<u8>), Error> {
    let step = |_, p: f64| match (0.0..=1.0).contains(&p) {
        true => Ok((p * 255.0).round() as u8),
        false => x.wrong(format!("pixel {p}"), "floats from 0 to 1, or bytes"),
    };
    let byte = |_, p: i128| {
        u8::try_from(p).or_else(|_| x.wrong(format!("pixel {p}"), "whole numbers from 0 to 255"))
    };
    let stored: Cow<'_, [u8]> = match x.kind() {
        Some((TypeChar::Uint, 1)) => Cow::from(&x.data),
        Some((TypeChar::Float, 4)) => x.items::<f32, _, _>(step)?.into(),
        Some((TypeChar::Float, 8)) => x.items::<f64, _, _>(step)?.into(),
        _ => x.whole(byte)?.into(),
    };
    if x.shape.contains(&0) {
        return x.wrong(format!("shape {:?}", x.shape), "at least one pixel");
    }
    // Strides turn every layout, also Fortran's order, into the one loop below.
    let strides: Vec<usize> = x.header.strides().iter().map(|&s| s as usize).collect();
    let ([n, c, h, w], [sn, sc, sh, sw]) = match (&x.shape[..], &strides[..]) {
        (&[n, h, w], &[sn, sh, sw]) => ([n, 1, h, w], [sn, 0, sh, sw]),
        (&[n, c @ (1 | 3), h, w], &[sn, sc, sh, sw]) => ([n, c, h, w], [sn, sc, sh, sw]),
        (&[n, h, w, c @ (1 | 3)], &[sn, sh, sw, sc]) => ([n, c, h, w], [sn, sc, sh, sw]),
        _ => {
            return x.wrong(
                format!("shape {:?}", x.shape),
                "images as N H W, N C H W or N H W C, with 1 or 3 channels C",
            );
        }
    };
    let mut pixels = Vec::with_capacity(stored.len());
    for i in 0..n {
        for k in 0..c {
            for u in 0..h {
                pixels.extend((0..w).map(|v| stored[i * sn + k * sc + u * sh + v * sw]));
            }
        }
    }
    Ok(([c, h, w], pixels))
}

/// The labels of `n` images.
fn labels(y: &Array, n: usize) -> Result<Vec<u32>, Error> {
    if y.shape != [n] && y.shape != [n, 1] {
        return y.wrong(format!("shape {:?}", y.shape), format!("a label for each of {n} images"));
    }
    y.whole(|index, label| match usize::try_from(label) {
        Ok(l) if l < MOST_CLASSES => Ok(l as u32),
        _ => Err(Error::Label { file: y.file.clone(), index, label, classes: MOST_CLASSES }),
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use npyz::{AutoSerialize, WriterBuilder};
    use proptest::prelude::*;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    /// An npy file with this array.
    fn npy<T: AutoSerialize>(shape: &[u64], order: npyz::Order, items: &[T]) -> Vec<u8> {
        let mut bytes = vec![];
        let how = npyz::WriteOptions::new().default_dtype().shape(shape).order(order);
        let mut npy = how.writer(&mut bytes).begin_nd().unwrap();
        items.iter().for_each(|x| npy.push(x).unwrap());
        npy.finish().unwrap();
        bytes
    }

    fn c_order<T: AutoSerialize>(shape: &[u64], items: &[T]) -> Vec<u8> {
        npy(shape, npyz::Order::C, items)
    }

    fn archive(arrays: [(&str, Vec<u8>); 4]) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(vec![]));
        for (name, bytes) in arrays {
            zip.start_file(format!("{name}.npy"), SimpleFileOptions::default()).unwrap();
            zip.write_all(&bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    /// An archive whose training images and labels are these, beside two sound test images of 1 x 1 x 2.
    fn with(x: Vec<u8>, y: Vec<u8>) -> Vec<u8> {
        let (x_test, y_test) = (c_order(&[2, 1, 2], &[9u8, 8, 7, 6]), c_order(&[2], &[0u8, 1]));
        archive([("x_train", x), ("y_train", y), ("x_test", x_test), ("y_test", y_test)])
    }

    fn train(archive: Vec<u8>) -> Result<Split, String> {
        let [train, _] = splits(Cursor::new(archive), "t.npz").map_err(|e| e.to_string())?;
        Ok(train)
    }

    fn refuse(x: Vec<u8>, y: Vec<u8>) -> String {
        train(with(x, y)).unwrap_err()
    }

    #[test]
    fn all_layouts_become_n_c_h_w() {
        let y = || c_order(&[2, 1], &[1i64, 0]);
        let image = |x| {
            let split = train(with(x, y())).unwrap();
            assert_eq!(split.labels().collect::<Vec<_>>(), [1, 0]);
            (split.shape(), split.image(1).to_vec())
        };
        let grey: Vec<u8> = (0..12).collect();
        assert_eq!(image(c_order(&[2, 2, 3], &grey)), ([1, 2, 3], vec![6, 7, 8, 9, 10, 11]));
        assert_eq!(image(c_order(&[2, 1, 2, 3], &grey)), ([1, 2, 3], vec![6, 7, 8, 9, 10, 11]));
        assert_eq!(image(c_order(&[2, 3, 1, 2], &grey)), ([3, 1, 2], vec![6, 7, 8, 9, 10, 11]));
        assert_eq!(image(c_order(&[2, 2, 1, 3], &grey)), ([3, 2, 1], vec![6, 9, 7, 10, 8, 11]));
        let fortran = npy(&[2, 2, 3], npyz::Order::Fortran, &grey);
        assert_eq!(image(fortran), ([1, 2, 3], vec![1, 5, 9, 3, 7, 11]));
        let floats = c_order(&[2, 1, 2], &[0.0f32, 1.0, 0.5, 0.2]);
        assert_eq!(image(floats), ([1, 1, 2], vec![128, 51]));
        assert_eq!(image(c_order(&[2, 1, 1], &[7i64, 255])), ([1, 1, 1], vec![255]));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let x = || c_order(&[2, 1, 2], &[1u8, 2, 3, 4]);
        let y = || c_order(&[2], &[0u8, 1]);
        assert_eq!(
            refuse(x(), c_order(&[3], &[0u8, 1, 0])),
            "t.npz (y_train): found shape [3], expected a label for each of 2 images"
        );
        assert_eq!(
            refuse(c_order(&[2, 2], &[1u8, 2, 3, 4]), y()),
            "t.npz (x_train): found shape [2, 2], expected images as N H W, N C H W or N H W C, with 1 or 3 channels C"
        );
        assert_eq!(
            refuse(c_order::<u8>(&[999_999_999_999, 0, 28], &[]), y()),
            "t.npz (x_train): found shape [999999999999, 0, 28], expected at least one pixel"
        );
        assert_eq!(
            refuse(c_order(&[2, 1, 1], &[0i16, 256]), y()),
            "t.npz (x_train): found pixel 256, expected whole numbers from 0 to 255"
        );
        assert_eq!(
            refuse(c_order(&[2, 1, 1], &[0.5, f64::NAN]), y()),
            "t.npz (x_train): found pixel NaN, expected floats from 0 to 1, or bytes"
        );
        assert_eq!(
            refuse(x(), c_order(&[2], &[0.0f32, 1.0])),
            "t.npz (y_train): found type '<f4', expected whole numbers"
        );
        assert!(
            refuse(x(), c_order(&[2], &[0i32, -1]))
                .starts_with("t.npz (y_train): found label -1 at index 1, expected a label from 0")
        );
        let short = archive([("x_train", x()), ("y", y()), ("x_test", x()), ("y_test", y())]);
        assert_eq!(
            train(short).unwrap_err(),
            "t.npz: found x_train.npy, y.npy, x_test.npy, y_test.npy, expected an array y_train"
        );
    }

    #[test]
    fn a_header_that_promises_too_much_is_refused() {
        let promise = |header: &str| {
            let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
            bytes.extend((header.len() as u16).to_le_bytes());
            bytes.extend(header.as_bytes());
            refuse(bytes, c_order(&[1], &[0u8]))
        };
        let shape =
            |s| promise(&format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {s}, }}"));
        assert_eq!(
            shape("(999999999, 28, 28)"),
            "t.npz (x_train): found 0 bytes of data, expected [999999999, 28, 28] items of 1 bytes"
        );
        assert!(shape("(99999999999, 9999999999, 1)").contains("found a header with 23 digits"));
        assert!(promise(&"(".repeat(2000)).contains("found a header of 2000 bytes"));
        assert!(promise(&"(".repeat(1000)).contains("expected an array in NumPy's npy format"));
    }

    #[test]
    fn a_file_says_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none.npz");
        let name = path.display().to_string();
        assert!(open(&path).unwrap_err().to_string().starts_with(&format!("cannot open {name}")));
        std::fs::write(&path, "no archive").unwrap();
        assert!(open(&path).unwrap_err().to_string().starts_with(&format!("{name}: found ")));
        let x = c_order(&[2, 1, 2], &[1u8, 2, 3, 4]);
        std::fs::write(&path, with(x.clone(), c_order(&[2], &[0u8, 1]))).unwrap();
        let data = open(&path).unwrap();
        assert_eq!((data.classes, data.test.len()), (vec!["0".to_string(), "1".to_string()], 2));
        // The test labels name a class that no training image has.
        std::fs::write(&path, with(x, c_order(&[2], &[0u8, 0]))).unwrap();
        assert_eq!(
            open(&path).unwrap_err().to_string(),
            format!(
                "{name} (y_test): found label 1 at index 1, expected a label from 0 to 0: the set has 1 classes"
            )
        );
    }

    proptest! {
        #[test]
        fn damage_never_panics(cut in 0usize..2000, flips in prop::collection::vec((0usize..2000, any::<u8>()), 0..4)) {
            let mut bytes = with(c_order(&[2, 1, 2], &[1u8, 2, 3, 4]), c_order(&[2], &[0u8, 1]));
            for (at, with) in flips {
                let at = at % bytes.len();
                bytes[at] ^= with;
            }
            bytes.truncate(cut);
            let _ = train(bytes);
        }

        /// The checksum of the archive would hide most damage, so the arrays are also damaged inside.
        #[test]
        fn damage_inside_never_panics(cut in 0usize..200, flips in prop::collection::vec((0usize..200, any::<u8>()), 0..4)) {
            let mut x = c_order(&[2, 1, 2], &[1u8, 2, 3, 4]);
            for (at, with) in flips {
                let at = at % x.len();
                x[at] ^= with;
            }
            x.truncate(cut);
            let _ = train(with(x, c_order(&[2], &[0u8, 1])));
        }
    }
}
