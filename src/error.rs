//! What can go wrong with what the world supplies: files, arguments, data. Wrong shapes in code are
//! bugs, and panic.

use std::path::{Path, PathBuf};

/// An error of the outside world: it names the file, key or argument, what was found there and
/// what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that can't be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A file with something else in it than was expected.
    #[error("{}: {what}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A data set that can't be had.
    #[error(transparent)]
    Data(#[from] dirnet_datasets::Error),
    /// A name, option or setting that means nothing.
    #[error("{0}")]
    Setting(String),
    /// Sizes that do not fit each other.
    #[error(transparent)]
    Shape(#[from] dirnet_kernels::ShapeError),
    /// Training that can't go on.
    #[error("{0}")]
    Training(String),
    /// Stopped from outside, in an orderly way.
    #[error("{0}")]
    Interrupted(String),
}

impl Error {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Error::Io { path: path.to_path_buf(), source }
    }
    pub(crate) fn file(path: &Path, what: impl Into<String>) -> Self {
        Error::File { path: path.to_path_buf(), what: what.into() }
    }
}

/// Of the names that exist, the one that was probably meant.
pub(crate) fn near_miss<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let distance = |name: &&str| strsim::damerau_levenshtein(word, name);
    let best = known.into_iter().min_by_key(distance)?;
    (distance(&best) <= 1 + best.len() / 4).then_some(best)
}

/// `unknown WHAT "word"; did you mean …? Known are …`
pub(crate) fn unknown(what: &str, word: &str, known: &[&str]) -> Error {
    let hint = match near_miss(word, known.iter().copied()) {
        Some(name) => format!("; did you mean \"{name}\"?"),
        None => String::new(),
    };
    Error::Setting(format!("unknown {what} \"{word}\"{hint} (known: {})", known.join(", ")))
}
