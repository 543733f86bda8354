//! Names to data sets: which there are, where their files may lie, and which was meant by a misspelt one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::augment::Augment;
use crate::dataset::Dataset;
use crate::digits::digits;
use crate::error::Error;
use crate::{cifar, fashion, folder, idx, npz};

/// A data set that has a name of its own, and whether it is on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// What [`open`] knows it by.
    pub name: &'static str,
    /// What is in the images.
    pub what: &'static str,
    /// The number of training images.
    pub train: usize,
    /// The number of test images.
    pub test: usize,
    /// Channels, height, width.
    pub shape: [usize; 3],
    /// The number of classes.
    pub classes: usize,
    /// Whether it is part of the program.
    pub embedded: bool,
    /// The folder it was found in, where it is not embedded and is here.
    pub folder: Option<PathBuf>,
}

struct Known {
    name: &'static str,
    what: &'static str,
    size: [usize; 2],
    shape: [usize; 3],
    from: From,
}

enum From {
    Program(fn() -> Dataset),
    Files {
        /// Where in a place the files may lie: our own folder's name, then those of others.
        folders: &'static [&'static str],
        is_here: fn(&Path) -> bool,
        open: fn(&Path) -> Result<Dataset, Error>,
    },
}

static KNOWN: [Known; 5] = [
    Known {
        name: "digits",
        what: "handwritten digits, small",
        size: [1347, 450],
        shape: [1, 8, 8],
        from: From::Program(digits),
    },
    Known {
        name: "fashion-mini",
        what: "clothes, a sixth of the training images",
        size: [10_000, 10_000],
        shape: [1, 28, 28],
        from: From::Program(fashion::fashion_mini),
    },
    Known {
        name: "fashion-mnist",
        what: "clothes",
        size: [60_000, 10_000],
        shape: [1, 28, 28],
        from: From::Files {
            folders: &["fashion-mnist", "FashionMNIST/raw"],
            is_here: idx::is_here,
            open: fashion_mnist,
        },
    },
    Known {
        name: "mnist",
        what: "handwritten digits",
        size: [60_000, 10_000],
        shape: [1, 28, 28],
        from: From::Files { folders: &["mnist", "MNIST/raw"], is_here: idx::is_here, open: mnist },
    },
    Known {
        name: "cifar10",
        what: "animals and vehicles in colour",
        size: [50_000, 10_000],
        shape: [3, 32, 32],
        from: From::Files {
            folders: &["cifar10", "cifar-10-batches-bin"],
            is_here: cifar::is_here,
            open: cifar::open,
        },
    },
];

fn fashion_mnist(folder: &Path) -> Result<Dataset, Error> {
    let data = idx::open(folder, "fashion-mnist", fashion::CLASSES.map(String::from).to_vec())?;
    Ok(Dataset { source: fashion::SOURCE.into(), augment: fashion::AUGMENT, ..data })
}

fn mnist(folder: &Path) -> Result<Dataset, Error> {
    let data = idx::open(folder, "mnist", (0..10).map(|i| i.to_string()).collect())?;
    let source = "MNIST, Y. LeCun, C. Cortes and C. J. C. Burges, 1998".into();
    Ok(Dataset { source, augment: Augment { shift: 2, flip: false }, ..data })
}

/// Opens a data set by its name: `digits`, `fashion-mini`, `fashion-mnist`, `mnist`, `cifar10`,
/// `npz:FILE`, `folder:DIR`, or `folder:DIR@HxW` to resize the pictures.
///
/// The files of a set that is not embedded are looked for in a folder of its name in `data_dir`, then in
/// `$DIRNET_DATA`, in the user's cache, and where Debian's `dataset-fashion-mnist` puts them.
///
/// # Errors
/// If there is no set of this name, its files are not here, or they are damaged.
pub fn open(name: &str, data_dir: Option<&Path>) -> Result<Dataset, Error> {
    open_among(name, &places(data_dir, |key| std::env::var_os(key)))
}

/// All sets that have a name of their own, and where they are.
pub fn list(data_dir: Option<&Path>) -> Vec<Info> {
    let places = places(data_dir, |key| std::env::var_os(key));
    let info = |known: &Known| Info {
        name: known.name,
        what: known.what,
        train: known.size[0],
        test: known.size[1],
        shape: known.shape,
        classes: 10,
        embedded: matches!(known.from, From::Program(_)),
        folder: known.find(&places),
    };
    KNOWN.iter().map(info).collect()
}

/// Where downloaded sets go, each into a folder of its name: `data_dir`, or `$DIRNET_DATA`, or the user's
/// cache. `None` if there is none of these.
pub fn home(data_dir: Option<&Path>) -> Option<PathBuf> {
    own_places(data_dir, |key| std::env::var_os(key)).into_iter().next()
}

fn own_places(data_dir: Option<&Path>, env: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let folder = |key| env(key).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = if cfg!(windows) {
        folder("LOCALAPPDATA")
    } else {
        let home = |name| folder("HOME").map(|home| home.join(name));
        let usual = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
        folder("XDG_CACHE_HOME").filter(|path| path.is_absolute()).or_else(|| home(usual))
    };
    let cache = cache.map(|cache| cache.join("dirnet"));
    [data_dir.map(PathBuf::from), folder("DIRNET_DATA"), cache].into_iter().flatten().collect()
}

/// The places to look in, first to last.
fn places(data_dir: Option<&Path>, env: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let mut places = own_places(data_dir, env);
    places.push("/usr/share/datasets".into());
    places
}

fn open_among(name: &str, places: &[PathBuf]) -> Result<Dataset, Error> {
    if let Some(file) = name.strip_prefix("npz:") {
        return npz::open(Path::new(file));
    }
    if let Some(dir) = name.strip_prefix("folder:") {
        let (dir, size) = split_size(dir);
        return Ok(Dataset { name: name.into(), ..folder::open(Path::new(dir), size)? });
    }
    let Some(known) = KNOWN.iter().find(|known| known.name == name) else {
        return Err(unknown(name));
    };
    match &known.from {
        From::Program(make) => Ok(make()),
        From::Files { open, .. } => match known.find(places) {
            Some(folder) => open(&folder),
            None => {
                let looked: Vec<_> =
                    places.iter().map(|place| place.join(name).display().to_string()).collect();
                Err(Error::Missing { name: name.into(), looked: looked.join(", ") })
            }
        },
    }
}

impl Known {
    fn find(&self, places: &[PathBuf]) -> Option<PathBuf> {
        let From::Files { folders, is_here, .. } = &self.from else { return None };
        places
            .iter()
            .flat_map(|place| {
                // A place that has the set's own name may be the very folder. Any other may not: MNIST and
                // Fashion-MNIST use the same file names.
                let itself = place.file_name().is_some_and(|name| name == self.name);
                let inside = folders.iter().map(|folder| place.join(folder));
                inside.chain(itself.then(|| place.clone()))
            })
            .find(|folder| is_here(folder))
    }
}

/// `DIR@HxW` as the folder and the size.
fn split_size(dir: &str) -> (&str, Option<[usize; 2]>) {
    let size = |text: &str| {
        let (h, w) = text.split_once('x')?;
        let side = |s: &str| s.parse().ok().filter(|n| (1..=4096).contains(n));
        Some([side(h)?, side(w)?])
    };
    match dir.rsplit_once('@').map(|(dir, text)| (dir, size(text))) {
        Some((dir, size @ Some(_))) => (dir, size),
        _ => (dir, None),
    }
}

/// Whether this is the name of a set that is part of the program.
#[cfg(feature = "fetch")]
pub(crate) fn embedded(name: &str) -> bool {
    KNOWN.iter().any(|known| known.name == name && matches!(known.from, From::Program(_)))
}

/// The error that says so, with the known name that was probably meant.
pub(crate) fn unknown(name: &str) -> Error {
    let names = || KNOWN.iter().map(|known| known.name).chain(["npz:FILE", "folder:DIR"]);
    let likeness = |known: &str| strsim::jaro_winkler(&name.to_lowercase(), known);
    let nearest = names().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    Error::Unknown {
        name: name.into(),
        suggestion: nearest.filter(|known| likeness(known) > 0.8).map(String::from),
        known: names().collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn embedded_sets_are_as_the_list_says() {
        for info in list(None).iter().filter(|info| info.embedded) {
            let data = open(info.name, None).unwrap();
            assert_eq!(data.name, info.name);
            assert_eq!((data.train.len(), data.test.len()), (info.train, info.test));
            assert_eq!((data.shape(), data.classes.len()), (info.shape, info.classes));
            assert!(!data.source.is_empty() && info.folder.is_none());
        }
    }

    #[test]
    fn a_misspelt_name_is_guessed() {
        let refuse = |name| open_among(name, &[]).unwrap_err().to_string();
        assert_eq!(
            refuse("fashoin-mini"),
            "unknown data set `fashoin-mini`, did you mean `fashion-mini`?; known are digits, fashion-mini, \
             fashion-mnist, mnist, cifar10, npz:FILE, folder:DIR"
        );
        assert!(refuse("CIFAR-10").contains("did you mean `cifar10`?"));
        assert!(refuse("minst").contains("did you mean `mnist`?"));
        assert!(!refuse("xyz").contains("did you mean"));
    }

    #[test]
    fn places_are_asked_in_order() {
        let env = |key: &str| match key {
            "DIRNET_DATA" => Some("/data".into()),
            "HOME" | "LOCALAPPDATA" => Some("/home/me".into()),
            _ => Some("".into()), // set, but to nothing
        };
        let all = places(Some(Path::new("mine")), env);
        assert_eq!(all[..2], [PathBuf::from("mine"), "/data".into()]);
        assert!(all[2].starts_with("/home/me") && all[2].ends_with("dirnet"));
        assert_eq!(all[3..], [PathBuf::from("/usr/share/datasets")]);
        assert_eq!(own_places(None, |_| None), [] as [PathBuf; 0]);
        let error = open_among("mnist", &all[..2]).unwrap_err().to_string();
        assert_eq!(
            error.replace('\\', "/"),
            "the data set `mnist` is not here; looked in mine/mnist, /data/mnist; `dirnet data fetch mnist` \
             downloads it"
        );
    }

    #[test]
    fn a_set_is_found_in_a_folder_of_its_name_only() {
        let root = tempfile::tempdir().unwrap();
        let write = |folder: &str, label: u8| {
            let folder = root.path().join(folder);
            fs::create_dir_all(&folder).unwrap();
            for part in ["train", "t10k"] {
                let images =
                    [&[0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1], &[9u8][..]].concat();
                fs::write(folder.join(format!("{part}-images-idx3-ubyte")), images).unwrap();
                let labels = [0, 0, 8, 1, 0, 0, 0, 1, label];
                fs::write(folder.join(format!("{part}-labels-idx1-ubyte")), labels).unwrap();
            }
            folder
        };
        let label = |name, place: &Path| {
            open_among(name, &["/nowhere".into(), place.into()])
                .map(|data| data.train.label(0))
                .ok()
        };
        let fashion = write("a/fashion-mnist", 1);
        assert_eq!(label("fashion-mnist", &root.path().join("a")), Some(1));
        assert_eq!(label("fashion-mnist", &fashion), Some(1));
        assert_eq!(label("mnist", &fashion), None);
        write("b/MNIST/raw", 2);
        assert_eq!(label("mnist", &root.path().join("b")), Some(2));
        let data = open_among("mnist", &[root.path().join("b")]).unwrap();
        assert_eq!((data.name.as_str(), data.augment.shift), ("mnist", 2));
        let here = list(Some(&root.path().join("a")));
        let info = here.iter().find(|info| info.name == "fashion-mnist").unwrap();
        assert_eq!(info.folder, Some(fashion));
    }

    #[test]
    fn files_are_opened_by_path() {
        let refuse = |name| open_among(name, &[]).unwrap_err().to_string();
        assert!(refuse("npz:none.npz").starts_with("cannot open none.npz: "));
        assert!(refuse("folder:none@8x8").starts_with("cannot list none: "));
        assert_eq!(split_size("a@b@32x24"), ("a@b", Some([32, 24])));
        for dir in ["a", "a@", "a@32", "a@0x3", "a@9999x3", "a@bxc"] {
            assert_eq!(split_size(dir), (dir, None));
        }
    }
}
