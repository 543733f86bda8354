//! CIFAR-10 as published for C programs: records of one label and 3 x 32 x 32 bytes, red plane first.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use crate::augment::Augment;
use crate::dataset::{Dataset, Split};
use crate::error::Error;
use crate::files;

const CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
const SOURCE: &str =
    "CIFAR-10, A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009";

const SHAPE: [usize; 3] = [3, 32, 32];
const RECORD: usize = 1 + 3 * 32 * 32;
const ARCHIVE: &str = "cifar-10-binary.tar.gz";
const TRAIN: [&str; 5] = [
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
];
const TEST: [&str; 1] = ["test_batch.bin"];

/// Reads CIFAR-10 from a folder: its six `.bin` files, there or in `cifar-10-batches-bin`, or else
/// the archive `cifar-10-binary.tar.gz` as it was published.
///
/// A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
///
/// # Errors
/// If a file is missing, does not hold whole records, or holds a label that is no class.
pub fn open(folder: &Path) -> Result<Dataset, Error> {
    let unpacked = unpacked(folder);
    let mut bins = match &unpacked {
        Some(folder) => Bins::read(folder)?,
        None => Bins::unpack(&folder.join(ARCHIVE))?,
    };
    let (train, test) = (bins.split(&TRAIN)?, bins.split(&TEST)?);
    let data = Dataset::new("cifar10", train, test, CLASSES.map(String::from).to_vec())?;
    Ok(Dataset { source: SOURCE.into(), augment: Augment { shift: 4, flip: true }, ..data })
}

/// Whether the folder has the set, in either form.
pub(crate) fn is_here(folder: &Path) -> bool {
    unpacked(folder).is_some() || folder.join(ARCHIVE).is_file()
}

fn unpacked(folder: &Path) -> Option<PathBuf> {
    [folder.to_path_buf(), folder.join("cifar-10-batches-bin")]
        .into_iter()
        .find(|folder| folder.join(TRAIN[0]).is_file())
}

/// The contents of the `.bin` files there are, by name.
struct Bins {
    /// The folder or archive they come from.
    place: PathBuf,
    files: Vec<(&'static str, Vec<u8>)>,
}

impl Bins {
    fn read(folder: &Path) -> Result<Bins, Error> {
        let here = |name: &&str| folder.join(name).is_file();
        let read = |name| Ok((name, files::read(&folder.join(name))?));
        let files =
            TRAIN.into_iter().chain(TEST).filter(here).map(read).collect::<Result<_, _>>()?;
        Ok(Bins { place: folder.into(), files })
    }

    fn unpack(archive: &Path) -> Result<Bins, Error> {
        let bad = |e: std::io::Error| {
            Error::format(&archive.display().to_string(), e.to_string(), "a whole tar.gz archive")
        };
        let file = File::open(archive).map_err(|e| Error::io("open", archive, e))?;
        let mut files = vec![];
        let mut tar = tar::Archive::new(GzDecoder::new(BufReader::new(file)));
        for entry in tar.entries().map_err(bad)? {
            let mut entry = entry.map_err(bad)?;
            let path = entry.path().map_err(bad)?.into_owned();
            let wanted = |name: &&str| path.file_name().is_some_and(|file| file == *name);
            if let Some(name) = TRAIN.into_iter().chain(TEST).find(wanted) {
                let mut bytes = vec![];
                entry.read_to_end(&mut bytes).map_err(bad)?;
                files.push((name, bytes));
            }
        }
        Ok(Bins { place: archive.into(), files })
    }

    fn split(&mut self, names: &[&str]) -> Result<Split, Error> {
        let (mut pixels, mut labels) = (vec![], vec![]);
        for name in names {
            let Some(at) = self.files.iter().position(|(n, _)| n == name) else {
                let place = self.place.display().to_string();
                return Err(Error::format(&place, "no such file", *name));
            };
            let bytes = self.files.swap_remove(at).1;
            let file = self.place.join(name).display().to_string();
            records(&bytes, &file, &mut pixels, &mut labels)?;
        }
        Ok(Split::new(SHAPE, pixels, labels, self.place.display().to_string()))
    }
}

/// Takes a file of records apart.
fn records(
    bytes: &[u8],
    file: &str,
    pixels: &mut Vec<u8>,
    labels: &mut Vec<u32>,
) -> Result<(), Error> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(RECORD) {
        let found = format!("{} bytes", bytes.len());
        return Err(Error::format(file, found, format!("whole records of {RECORD} bytes")));
    }
    for (index, record) in bytes.chunks_exact(RECORD).enumerate() {
        let (label, image) = (record[0], &record[1..]);
        if usize::from(label) >= CLASSES.len() {
            let (file, label) = (file.to_string(), label.into());
            return Err(Error::Label { file, index, label, classes: CLASSES.len() });
        }
        labels.push(label.into());
        pixels.extend_from_slice(image);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    /// Two records, the second with this label, pixels counting up from the label.
    fn bin(label: u8) -> Vec<u8> {
        let record = |label: u8| (0..RECORD).map(move |i| label.wrapping_add(i as u8));
        record(label % 10).chain(record(label)).collect()
    }

    fn files() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
        TRAIN.into_iter().chain(TEST).zip((0..).map(bin))
    }

    fn archive() -> Vec<u8> {
        let mut tar = tar::Builder::new(GzEncoder::new(vec![], Compression::fast()));
        for (name, bytes) in files() {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            tar.append_data(&mut header, format!("cifar-10-batches-bin/{name}"), &*bytes).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn folder_and_archive_are_the_same_set() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_here(folder.path()));
        fs::write(folder.path().join(ARCHIVE), archive()).unwrap();
        assert!(is_here(folder.path()));
        let packed = open(folder.path()).unwrap();
        let inner = folder.path().join("cifar-10-batches-bin");
        fs::create_dir(&inner).unwrap();
        files().for_each(|(name, bytes)| fs::write(inner.join(name), bytes).unwrap());
        fs::remove_file(folder.path().join(ARCHIVE)).unwrap();
        for data in [packed, open(folder.path()).unwrap(), open(&inner).unwrap()] {
            assert_eq!((data.shape(), data.train.len(), data.test.len()), (SHAPE, 10, 2));
            assert_eq!(data.train.labels().collect::<Vec<_>>(), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
            assert_eq!(data.train.image(2)[..3], [2, 3, 4]);
            assert_eq!(data.test.label(1), 5);
        }
    }

    #[test]
    fn damage_is_named() {
        let refuse = |name: &str, bytes: Option<&[u8]>| {
            let folder = tempfile::tempdir().unwrap();
            files().for_each(|(name, bytes)| fs::write(folder.path().join(name), bytes).unwrap());
            match bytes {
                Some(bytes) => fs::write(folder.path().join(name), bytes).unwrap(),
                None => fs::remove_file(folder.path().join(name)).unwrap(),
            }
            let error = open(folder.path()).unwrap_err().to_string();
            error.replace(&folder.path().display().to_string(), "D").replace('\\', "/")
        };
        assert_eq!(
            refuse("data_batch_3.bin", Some(&bin(1)[1..])),
            "D/data_batch_3.bin: found 6145 bytes, expected whole records of 3073 bytes"
        );
        assert_eq!(
            refuse("test_batch.bin", Some(&bin(12))),
            "D/test_batch.bin: found label 12 at index 1, expected a label from 0 to 9: the set has 10 classes"
        );
        assert_eq!(
            refuse("data_batch_5.bin", None),
            "D: found no such file, expected data_batch_5.bin"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_damaged_archive_never_panics(cut: prop::sample::Index, at: prop::sample::Index, with: u8) {
            let mut bytes = archive();
            let at = at.index(bytes.len());
            bytes[at] ^= with;
            bytes.truncate(cut.index(bytes.len() + 1));
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(ARCHIVE), &bytes).unwrap();
            let _ = open(folder.path());
        }
    }
}
