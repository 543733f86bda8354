//! What can go wrong with files and names: each error says where, what was found, what was expected.

use std::io;
use std::path::Path;

/// Why a data set could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to open, read, write or list a file.
    #[error("cannot {action} {file}: {cause}")]
    Io {
        /// What was tried: `open`, `read`, `write`, ...
        action: &'static str,
        /// The file or folder.
        file: String,
        /// What the operating system said.
        #[source]
        cause: io::Error,
    },

    /// A file is there, but not as its format demands.
    #[error("{file}: found {found}, expected {expected}")]
    Format {
        /// The file, with the array or member inside it where there is one.
        file: String,
        /// What stands there.
        found: String,
        /// What should stand there.
        expected: String,
    },

    /// A label names a class that the set does not have.
    #[error(
        "{file}: found label {label} at index {index}, expected a label from 0 to {}: the set has {classes} classes",
        classes.saturating_sub(1)
    )]
    Label {
        /// The file the labels come from.
        file: String,
        /// The position of the label among the labels of that file.
        index: usize,
        /// The label found.
        label: i128,
        /// The number of classes of the set.
        classes: usize,
    },

    /// No data set goes by this name.
    #[error(
        "unknown data set `{name}`{}; known are {known}",
        suggestion.as_ref().map_or(String::new(), |s| format!(", did you mean `{s}`?"))
    )]
    Unknown {
        /// The name asked for.
        name: String,
        /// The known name that looks most like it, where one does.
        suggestion: Option<String>,
        /// All known names.
        known: String,
    },

    /// A known set whose files are not on this machine.
    #[error(
        "the data set `{name}` is not here; looked in {looked}; `dirnet data fetch {name}` downloads it"
    )]
    Missing {
        /// The name of the set.
        name: String,
        /// The folders looked in.
        looked: String,
    },

    /// A download failed.
    #[error("cannot download {url}: {cause}")]
    Download {
        /// The address.
        url: String,
        /// What the connection or the server said.
        cause: String,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, file: &Path, cause: io::Error) -> Error {
        Error::Io { action, file: file.display().to_string(), cause }
    }

    pub(crate) fn format(
        file: &str,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Error {
        Error::Format { file: file.to_string(), found: found.into(), expected: expected.into() }
    }
}
