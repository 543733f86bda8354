//! Named tensors in a file that NumPy reads: `numpy.load(path)["conv1.weight"]`.

use crate::{Error, Tensor, files};
use npyz::WriterBuilder;
use npyz::npz::{NpzArchive, NpzWriter};
use std::collections::HashMap;
use std::io::{self, BufReader, Write};
use std::path::Path;

/// What an `npz` file holds.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// Arrays of 32-bit floats.
    pub arrays: HashMap<String, Tensor>,
    /// Arrays of bytes, as UTF-8.
    pub texts: HashMap<String, String>,
}

/// Writes arrays and texts, whole or not at all.
pub(crate) fn save<'a>(
    path: &Path,
    arrays: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    texts: &[(&str, &str)],
) -> Result<(), Error> {
    files::write_whole(path, |out| {
        let mut npz = NpzWriter::new(out);
        for (name, tensor) in arrays {
            let shape: Vec<u64> = tensor.shape().iter().map(|&n| n as u64).collect();
            let mut array = npz
                .array(name, Default::default())?
                .default_dtype()
                .shape(&shape)
                .begin_nd()?;
            array.extend(tensor.iter().copied())?;
            array.finish()?;
        }
        for (name, text) in texts {
            let mut array = npz
                .array(name, Default::default())?
                .default_dtype()
                .shape(&[text.len() as u64])
                .begin_nd()?;
            array.extend(text.bytes())?;
            array.finish()?;
        }
        npz.zip_writer().flush()
    })
}

/// Reads all arrays of 32-bit floats, and all arrays of bytes as texts.
pub(crate) fn load(path: &Path) -> Result<Contents, Error> {
    let broken = |what: String| Error::file(path, what);
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    let mut npz = NpzArchive::new(BufReader::new(file))
        .map_err(|e| broken(format!("not a whole npz file: {e}")))?;
    let names: Vec<String> = npz.array_names().map(String::from).collect();
    let mut contents = Contents::default();
    for name in names {
        let bad = |what: &dyn std::fmt::Display| broken(format!("array {name}: {what}"));
        // What the archive says of the entry's size bounds what its header may ask for.
        let size = npz
            .zip_archive()
            .by_name(&format!("{name}.npy"))
            .map_err(|e| bad(&e))?
            .size();
        let array = npz.by_name(&name).map_err(|e| bad(&e))?.ok_or_else(|| bad(&"is gone"))?;
        let shape: Vec<usize> = array.shape().iter().map(|&n| n as usize).collect();
        let count = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
        if count.is_none_or(|n| n as u64 > size) {
            return Err(bad(&format!("shape {shape:?} is more than the file holds")));
        }
        if array.order() != npyz::Order::C {
            return Err(bad(&"is in column-major order, expected row major"));
        }
        match array.dtype().descr().as_str() {
            "'<f4'" => {
                let data = array.into_vec::<f32>().map_err(|e| bad(&e))?;
                contents.arrays.insert(name, Tensor::new(shape, data));
            }
            "'|u1'" => {
                let data = array.into_vec::<u8>().map_err(|e| bad(&e))?;
                let text = String::from_utf8(data).map_err(|e| bad(&e))?;
                contents.texts.insert(name, text);
            }
            other => return Err(bad(&format!("holds {other}, expected 32-bit floats"))),
        }
    }
    Ok(contents)
}

/// An error of `io` where a closure must give one.
#[allow(dead_code)]
fn other(e: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(e)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(path: &Path) {
        let x = Tensor::new([2, 3], vec![1.0, -2.5, 0.0, 4.0, f32::MIN_POSITIVE, 6.0]);
        let s = Tensor::scalar(7.0);
        save(path, [("a.weight", &x), ("s", &s)], &[("meta", "{\"é\": 1}")]).unwrap();
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npz");
        sample(&path);
        let contents = load(&path).unwrap();
        assert_eq!(contents.arrays["a.weight"].shape(), [2, 3]);
        assert_eq!(contents.arrays["a.weight"][4], f32::MIN_POSITIVE);
        assert_eq!(contents.arrays["s"].item(), 7.0);
        assert_eq!(contents.texts["meta"], "{\"é\": 1}");
    }

    #[test]
    fn every_truncation_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npz");
        sample(&path);
        let whole = std::fs::read(&path).unwrap();
        let cut = dir.path().join("cut.npz");
        for len in (0..whole.len()).step_by(7) {
            std::fs::write(&cut, &whole[..len]).unwrap();
            let message = load(&cut).unwrap_err().to_string();
            assert!(message.contains("cut.npz"), "{message}");
        }
    }
}
