//! The IDX format of MNIST: a magic number, the sizes as big-endian words, and bytes.

use std::path::{Path, PathBuf};

use crate::dataset::{Dataset, Split};
use crate::error::Error;
use crate::files;

/// Reads a set of four IDX files, raw or with `.gz`: `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`,
/// `t10k-images-idx3-ubyte`, `t10k-labels-idx1-ubyte`.
///
/// # Errors
/// If a file is missing, is not in the IDX format, has another length than it says, or holds a label
/// that is no class.
pub fn open(folder: &Path, name: &str, classes: Vec<String>) -> Result<Dataset, Error> {
    let train = split(folder, "train")?;
    Dataset::new(name, train, split(folder, "t10k")?, classes)
}

/// Whether the folder has the first of the four files.
pub(crate) fn is_here(folder: &Path) -> bool {
    locate(folder, "train-images-idx3-ubyte").is_some()
}

fn locate(folder: &Path, name: &str) -> Option<PathBuf> {
    let path = folder.join(name);
    [path.with_extension("gz"), path].into_iter().find(|path| path.is_file())
}

fn split(folder: &Path, part: &str) -> Result<Split, Error> {
    let file = |name: String| {
        let path = locate(folder, &name).ok_or_else(|| {
            let folder = folder.display().to_string();
            Error::format(&folder, "no such file", format!("{name} or {name}.gz"))
        })?;
        Ok((files::read(&path)?, path.display().to_string()))
    };
    let (x, x_file) = file(format!("{part}-images-idx3-ubyte"))?;
    let (y, y_file) = file(format!("{part}-labels-idx1-ubyte"))?;
    let ([n, h, w], pixels) = parse(x, &x_file)?;
    let ([labels], y) = parse(y, &y_file)?;
    if labels != n {
        return Err(Error::format(
            &y_file,
            format!("{labels} labels"),
            format!("{n}, one an image"),
        ));
    }
    Ok(Split::new([1, h, w], pixels, y.into_iter().map(u32::from).collect(), y_file))
}

/// The `D` sizes of an IDX file of bytes, and its data.
fn parse<const D: usize>(mut bytes: Vec<u8>, file: &str) -> Result<([usize; D], Vec<u8>), Error> {
    let start = 4 * (D + 1);
    let word = |i: usize| bytes[4 * i..].first_chunk().map(|b| u32::from_be_bytes(*b));
    // Two zero bytes, 8 for unsigned bytes, and the number of sizes.
    let magic = 0x800 + D as u32;
    if bytes.len() < start || word(0) != Some(magic) {
        let head: Vec<String> = bytes.iter().take(4).map(|b| format!("{b:02x}")).collect();
        let found = format!("{} bytes that begin with {}", bytes.len(), head.join(" "));
        return Err(Error::format(
            file,
            found,
            format!("an IDX header, {magic:08x} and {D} sizes"),
        ));
    }
    let sizes: [usize; D] = std::array::from_fn(|i| word(i + 1).unwrap_or(0) as usize);
    let product = sizes.iter().try_fold(1usize, |all, &n| all.checked_mul(n));
    if product != Some(bytes.len() - start) {
        let found = format!("{} bytes of data", bytes.len() - start);
        return Err(Error::format(file, found, format!("{sizes:?} bytes, as its header says")));
    }
    bytes.drain(..start);
    Ok((sizes, bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn idx(sizes: &[u32], data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, sizes.len() as u8];
        bytes.extend(sizes.iter().flat_map(|n| n.to_be_bytes()));
        bytes.extend(data);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut gz = GzEncoder::new(vec![], Compression::fast());
        gz.write_all(bytes).unwrap();
        gz.finish().unwrap()
    }

    /// A folder of two training images, zipped, and one test image, raw.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, bytes: Vec<u8>| fs::write(folder.path().join(name), bytes).unwrap();
        write("train-images-idx3-ubyte.gz", gzip(&idx(&[2, 1, 3], &[1, 2, 3, 4, 5, 6])));
        write("train-labels-idx1-ubyte.gz", gzip(&idx(&[2], &[1, 0])));
        write("t10k-images-idx3-ubyte", idx(&[1, 1, 3], &[7, 8, 9]));
        write("t10k-labels-idx1-ubyte", idx(&[1], &[1]));
        folder
    }

    fn names() -> Vec<String> {
        vec!["no".into(), "yes".into()]
    }

    #[test]
    fn raw_and_zipped_files_are_read() {
        let folder = folder();
        assert!(is_here(folder.path()));
        let data = open(folder.path(), "toy", names()).unwrap();
        assert_eq!((data.shape(), data.train.len(), data.test.len()), ([1, 1, 3], 2, 1));
        assert_eq!((data.train.image(1), data.train.label(1)), (&[4, 5, 6][..], 0));
        assert_eq!((data.test.image(0), data.test.label(0)), (&[7, 8, 9][..], 1));
    }

    #[test]
    fn damage_is_named() {
        let refuse = |name: &str, bytes: &[u8]| {
            let folder = folder();
            fs::write(folder.path().join(name), bytes).unwrap();
            let error = open(folder.path(), "toy", names()).unwrap_err().to_string();
            error.replace(&folder.path().display().to_string(), "D").replace('\\', "/")
        };
        let whole = gzip(&idx(&[2], &[1, 0]));
        assert!(
            refuse("train-labels-idx1-ubyte.gz", &whole[..whole.len() - 9])
                .ends_with("expected a whole gzip file")
        );
        assert_eq!(
            refuse("t10k-labels-idx1-ubyte", &idx(&[1], &[2])),
            "D/t10k-labels-idx1-ubyte: found label 2 at index 0, expected a label from 0 to 1: the set has 2 classes"
        );
        assert_eq!(
            refuse("t10k-labels-idx1-ubyte", &idx(&[2], &[1, 0])),
            "D/t10k-labels-idx1-ubyte: found 2 labels, expected 1, one an image"
        );
        assert_eq!(
            refuse("t10k-images-idx3-ubyte", &idx(&[1, 1, 3], &[7, 8])),
            "D/t10k-images-idx3-ubyte: found 2 bytes of data, expected [1, 1, 3] bytes, as its header says"
        );
        assert_eq!(
            refuse("t10k-images-idx3-ubyte", &idx(&[u32::MAX, u32::MAX, u32::MAX], &[7])),
            "D/t10k-images-idx3-ubyte: found 1 bytes of data, expected [4294967295, 4294967295, 4294967295] bytes, \
             as its header says"
        );
        assert_eq!(
            refuse("t10k-images-idx3-ubyte", b"not an image"),
            "D/t10k-images-idx3-ubyte: found 12 bytes that begin with 6e 6f 74 20, expected an IDX header, 00000803 \
             and 3 sizes"
        );
        let folder = folder();
        fs::remove_file(folder.path().join("t10k-labels-idx1-ubyte")).unwrap();
        let error = open(folder.path(), "toy", names()).unwrap_err().to_string();
        assert!(error.ends_with("expected t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz"));
    }

    proptest! {
        #[test]
        fn damage_never_panics(
            cut in 0usize..30,
            at in 0usize..22,
            with: u8,
        ) {
            let mut bytes = idx(&[2, 1, 3], &[1, 2, 3, 4, 5, 6]);
            bytes[at] ^= with;
            bytes.truncate(cut);
            let _ = parse::<3>(bytes.clone(), "x");
            let _ = parse::<1>(bytes, "x");
        }
    }
}
