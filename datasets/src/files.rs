//! Whole files in memory, so that every reader can hold what a file says against what it has.

use std::fs;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;

use crate::error::Error;

/// The bytes of a file, unpacked where the name ends in `.gz`.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = fs::read(path).map_err(|e| Error::io("read", path, e))?;
    if path.extension().is_none_or(|e| e != "gz") {
        return Ok(bytes);
    }
    // The vector grows with what really comes out; the format cannot swell by more than a thousand times.
    let mut plain = vec![];
    match GzDecoder::new(&*bytes).read_to_end(&mut plain) {
        Ok(_) => Ok(plain),
        Err(e) => Err(Error::format(
            &path.display().to_string(),
            format!("{e} in {} bytes", bytes.len()),
            "a whole gzip file",
        )),
    }
}
