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
