//! Named tensors in a file that NumPy reads: `numpy.load(path)["conv1.weight"]`.

use crate::{Error, Tensor, files};
use npyz::{NpyFile, WriterBuilder};
use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use zip::{ZipArchive, ZipWriter, write::SimpleFileOptions};

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
        let mut zip = ZipWriter::new(out);
        for (name, tensor) in arrays {
            let shape: Vec<u64> = tensor.shape().iter().map(|&n| n as u64).collect();
            write_array(&mut zip, name, &shape, tensor.iter().copied())?;
        }
        for (name, text) in texts {
            write_array(&mut zip, name, &[text.len() as u64], text.bytes())?;
        }
        zip.finish()?;
        Ok(())
    })
}

fn write_array<T: npyz::AutoSerialize>(
    zip: &mut ZipWriter<impl Write + io::Seek>,
    name: &str,
    shape: &[u64],
    data: impl Iterator<Item = T>,
) -> io::Result<()> {
    // Stored, not deflated: floats in training hardly shrink.
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file(format!("{name}.npy"), stored.large_file(true))?;
    let mut npy = npyz::WriteOptions::new().default_dtype().shape(shape).writer(zip).begin_nd()?;
    npy.extend(data)?;
    npy.finish()
}

/// Reads all arrays of 32-bit floats, and all arrays of bytes as texts.
pub(crate) fn load(path: &Path) -> Result<Contents, Error> {
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    let mut zip = ZipArchive::new(BufReader::new(file))
        .map_err(|e| Error::file(path, format!("not a whole npz file: {e}")))?;
    let mut contents = Contents::default();
    for i in 0..zip.len() {
        let bad = |what: String| Error::file(path, what);
        let mut member = zip.by_index(i).map_err(|e| bad(e.to_string()))?;
        let name = member.name().map_err(|e| bad(e.to_string()))?;
        let name = name.trim_end_matches(".npy").to_string();
        let bad = |what: String| Error::file(path, format!("array {name}: {what}"));
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).map_err(|e| bad(e.to_string()))?;
        let (header, start) = dirnet_datasets::npz::header(&bytes).map_err(bad)?;
        let array = NpyFile::with_header(header, &bytes[start..]);
        let shape: Vec<usize> = array.shape().iter().map(|&n| n as usize).collect();
        if shape.iter().product::<usize>() > bytes.len() {
            return Err(bad(format!("shape {shape:?} is more than the file holds")));
        }
        if array.order() != npyz::Order::C && shape.len() > 1 {
            return Err(bad("is in column-major order, expected row major".into()));
        }
        match array.dtype().descr().as_str() {
            "'<f4'" => {
                let data = array.into_vec::<f32>().map_err(|e| bad(e.to_string()))?;
                contents.arrays.insert(name, Tensor::new(shape, data));
            }
            "'|u1'" => {
                let data = array.into_vec::<u8>().map_err(|e| bad(e.to_string()))?;
                let text = String::from_utf8(data).map_err(|e| bad(e.to_string()))?;
                contents.texts.insert(name, text);
            }
            other => return Err(bad(format!("holds {other}, expected 32-bit floats"))),
        }
    }
    Ok(contents)
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
    fn a_header_that_claims_the_world_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npz");
        let mut npy = b"\x93NUMPY\x01\0\x76\0".to_vec();
        let sizes = "99999999999, 99999999999, 99999999999";
        let claim = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({sizes}), }}");
        npy.extend(format!("{claim:<117}\n").bytes());
        let mut zip = ZipWriter::new(std::fs::File::create(&path).unwrap());
        zip.start_file("w.npy", SimpleFileOptions::default()).unwrap();
        zip.write_all(&npy).unwrap();
        zip.finish().unwrap();
        let message = load(&path).unwrap_err().to_string();
        assert!(message.contains("x.npz") && message.contains("array w"), "{message}");
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
