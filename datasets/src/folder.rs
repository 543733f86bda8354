//! `folder:DIR`: pictures in one folder a class.

use std::fs;
use std::path::{Path, PathBuf};

use crate::dataset::{Dataset, Split};
use crate::error::Error;
use crate::image::Image;
use crate::rng::Rng;

/// Reads PNG and JPEG files from a tree of folders, one a class, whose names in alphabetical order are
/// the classes.
///
/// - With folders `train` and `test` inside `dir`, these hold the classes, and all of them stand in `train`.
/// - Otherwise `dir` holds the classes, and a tenth of each (rounded, at least one, never all), drawn with
///   seed 0, becomes the test set.
///
/// Only files named `.png`, `.jpg` or `.jpeg` are read, and hidden ones are not. The images come in
/// an order drawn with seed 0, so that the first of them are of all classes. If any is in colour, grey ones become
/// three equal channels. All have to be of one size, unless `size` (height, width) is given, to which each is
/// then resized.
///
/// # Errors
/// If a folder or file cannot be read, there are no images, a picture is damaged, sizes differ, or
/// `test` has a class that `train` has not.
pub fn open(dir: &Path, size: Option<[usize; 2]>) -> Result<Dataset, Error> {
    let (train, test) = (dir.join("train"), dir.join("test"));
    let (classes, mut train, mut test) = if train.is_dir() && test.is_dir() {
        let classes = folders(&train)?;
        let (train, test) = (pictures(&train, &classes)?, pictures(&test, &classes)?);
        (classes, train, test)
    } else {
        let classes = folders(dir)?;
        let (train, test) = divide(pictures(dir, &classes)?);
        (classes, train, test)
    };
    let name = dir.display().to_string();
    if train.is_empty() || test.is_empty() {
        let found = format!("{} training and {} test pictures", train.len(), test.len());
        return Err(Error::format(&name, found, "folders of .png or .jpg files, one a class"));
    }
    Rng::keyed(0, "folder order", &[0]).shuffle(&mut train);
    Rng::keyed(0, "folder order", &[1]).shuffle(&mut test);

    let count = train.len();
    let images = read(train.iter().chain(&test), size)?;
    let Image { height, width, .. } = images[0];
    let channels = images.iter().map(|image| image.channels).max().unwrap_or(1);
    let split = |images: &[Image], pictures: &[Picture]| {
        let pixels = images.iter().flat_map(|image| image.with_channels(channels).pixels).collect();
        let labels = pictures.iter().map(|picture| picture.label).collect();
        Split::new([channels, height, width], pixels, labels, &name)
    };
    let (train, test) = (split(&images[..count], &train), split(&images[count..], &test));
    Dataset::new(format!("folder:{name}"), train, test, classes)
}

struct Picture {
    path: PathBuf,
    label: u32,
}

/// The visible things in a folder, by name.
fn entries(dir: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let failed = |e| Error::io("list", dir, e);
    let mut entries = vec![];
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        match path.file_name().and_then(|name| name.to_str()) {
            Some(name) if name.starts_with('.') => {}
            Some(name) => entries.push((name.to_string(), path)),
            None => {
                let file = path.display().to_string();
                return Err(Error::format(&file, "a name that is no text", "a name in UTF-8"));
            }
        }
    }
    entries.sort();
    Ok(entries)
}

fn folders(dir: &Path) -> Result<Vec<String>, Error> {
    let folders = entries(dir)?.into_iter().filter(|(_, path)| path.is_dir());
    Ok(folders.map(|(name, _)| name).collect())
}

/// The picture files of all classes, in order.
fn pictures(dir: &Path, classes: &[String]) -> Result<Vec<Picture>, Error> {
    let mut pictures = vec![];
    for folder in folders(dir)? {
        let path = dir.join(&folder);
        let Some(label) = classes.iter().position(|class| *class == folder) else {
            let file = path.display().to_string();
            return Err(Error::format(&file, "a new class", "a folder that `train` has too"));
        };
        for (name, path) in entries(&path)? {
            let name = name.to_lowercase();
            if [".png", ".jpg", ".jpeg"].iter().any(|end| name.ends_with(end)) {
                pictures.push(Picture { path, label: label as u32 });
            }
        }
    }
    Ok(pictures)
}

/// Training and test pictures; the input is sorted by label.
fn divide(pictures: Vec<Picture>) -> (Vec<Picture>, Vec<Picture>) {
    let (mut train, mut test) = (vec![], vec![]);
    let mut pictures = pictures.into_iter().peekable();
    while let Some(label) = pictures.peek().map(|picture| picture.label) {
        let mut class = vec![];
        while let Some(picture) = pictures.next_if(|picture| picture.label == label) {
            class.push(picture);
        }
        Rng::keyed(0, "folder split", &[label.into()]).shuffle(&mut class);
        let tenth = ((class.len() + 5) / 10).max(1).min(class.len() - 1);
        train.extend(class.split_off(tenth));
        test.extend(class);
    }
    (train, test)
}

/// The pictures, all of one size.
fn read<'a>(
    pictures: impl Iterator<Item = &'a Picture>,
    size: Option<[usize; 2]>,
) -> Result<Vec<Image>, Error> {
    let mut images: Vec<Image> = vec![];
    let mut first: Option<&Path> = None;
    for Picture { path, .. } in pictures {
        let image = match (Image::open(path)?, size) {
            (image, Some([height, width])) => image.resize(height, width),
            (image, None) => image,
        };
        if let (Some(first), Some(start)) = (first, images.first())
            && (start.height, start.width) != (image.height, image.width)
        {
            return Err(Error::format(
                &path.display().to_string(),
                format!("{} x {} pixels", image.height, image.width),
                format!(
                    "{} x {} like {}; `folder:DIR@{}x{}` would resize all",
                    start.height,
                    start.width,
                    first.display(),
                    start.height,
                    start.width
                ),
            ));
        }
        first.get_or_insert(path);
        images.push(image);
    }
    Ok(images)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a PNG of one grey value.
    fn png(path: &Path, height: u32, width: u32, color: png::ColorType, value: u8) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), width, height);
        encoder.set_color(color);
        let bytes = vec![value; height as usize * width as usize * color.samples()];
        encoder.write_header().unwrap().write_image_data(&bytes).unwrap();
    }

    fn grey(path: &Path, value: u8) {
        png(path, 2, 3, png::ColorType::Grayscale, value);
    }

    #[test]
    fn a_tenth_of_each_class_is_for_testing() {
        let folder = tempfile::tempdir().unwrap();
        for i in 0..20 {
            grey(&folder.path().join(format!("dog/{i:02}.png")), i);
            if i < 3 {
                grey(&folder.path().join(format!("cat/{i:02}.PNG")), 100 + i);
            }
        }
        fs::write(folder.path().join("dog/notes.txt"), "not a picture").unwrap();
        fs::write(folder.path().join("cat/.hidden.png"), "not a picture").unwrap();
        let data = open(folder.path(), None).unwrap();
        assert_eq!(
            (data.shape(), &data.classes[..]),
            ([1, 2, 3], &["cat".into(), "dog".into()][..])
        );
        assert_eq!((data.train.len(), data.test.len()), (2 + 18, 1 + 2));
        let mut seen = vec![];
        for split in [&data.train, &data.test] {
            for i in 0..split.len() {
                assert_eq!(split.label(i), u32::from(split.image(i)[0] < 100));
                seen.push(split.image(i)[0]);
            }
        }
        assert!(!seen.is_sorted(), "the classes should be mixed");
        seen.sort_unstable();
        assert_eq!(seen, (0..20).chain(100..103).collect::<Vec<_>>());
    }

    #[test]
    fn train_and_test_folders_are_kept_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        grey(&path("train/a/1.png"), 1);
        grey(&path("train/b/2.png"), 2);
        png(&path("test/b/3.png"), 4, 6, png::ColorType::Rgb, 3);
        let error = open(folder.path(), None).unwrap_err().to_string();
        assert!(error.contains("3.png: found 4 x 6 pixels, expected 2 x 3 like "), "{error}");
        assert!(error.ends_with(".png; `folder:DIR@2x3` would resize all"), "{error}");
        let data = open(folder.path(), Some([2, 3])).unwrap();
        assert_eq!((data.train.len(), data.test.len(), data.shape()), (2, 1, [3, 2, 3]));
        assert_eq!((data.test.label(0), data.test.image(0)), (1, &[3; 18][..]));
        grey(&path("test/c/4.png"), 4);
        let error = open(folder.path(), None).unwrap_err().to_string();
        assert!(error.ends_with("c: found a new class, expected a folder that `train` has too"));
    }

    #[test]
    fn an_empty_or_damaged_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = |path: &Path| open(path, None).unwrap_err().to_string();
        assert!(error(folder.path()).contains("found 0 training and 0 test pictures"));
        assert!(error(&folder.path().join("none")).starts_with("cannot list "));
        grey(&folder.path().join("a/1.png"), 1);
        assert!(error(folder.path()).contains("found 1 training and 0 test pictures"));
        fs::write(folder.path().join("a/2.png"), b"\x89PNG and nothing more").unwrap();
        assert!(error(folder.path()).contains("2.png: found "));
    }
}
