//! Named tensors in a file, as Python reads and writes them: `.npz` (NumPy) or `.safetensors`
//! (PyTorch and others). The file's name says which of the two it is.

mod npz;
mod safetensors;

use crate::{Error, Tensor};
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

/// What a file holds.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// Arrays of floats, whatever their size in the file.
    pub arrays: HashMap<String, Tensor>,
    /// What is said beside them, as `card.json`.
    pub texts: HashMap<String, String>,
}

/// The two forms.
#[derive(Clone, Copy)]
enum Form {
    Npz,
    Safetensors,
}

impl Form {
    fn of(path: &Path) -> Result<Self, Error> {
        let named = |form: &str| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(form));
        match (named("npz"), named("safetensors")) {
            (true, _) => Ok(Form::Npz),
            (_, true) => Ok(Form::Safetensors),
            _ => Err(Error::file(
                path,
                "expected a file .npz or .safetensors; how to make one of a PyTorch checkpoint: \
                 docs/weights.md",
            )),
        }
    }
}

/// Writes arrays and texts, whole or not at all.
///
/// # Errors
/// If the name is of neither form, or the file can't be written.
pub(crate) fn save<'a>(
    path: &Path,
    arrays: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    texts: &[(&str, &str)],
) -> Result<(), Error> {
    match Form::of(path)? {
        Form::Npz => npz::save(path, arrays, texts),
        Form::Safetensors => safetensors::save(path, arrays, texts),
    }
}

/// Reads all arrays and texts.
///
/// # Errors
/// If there is no such file, its name is of neither form, or it is not whole; if an array is of no
/// float type, or its name stands there twice.
pub(crate) fn load(path: &Path) -> Result<Contents, Error> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    match Form::of(path)? {
        Form::Npz => npz::load(path, file),
        Form::Safetensors => safetensors::load(path, file),
    }
}

impl Contents {
    /// Takes in an array as it lies in a file; `found` is its type there.
    ///
    /// # Errors
    /// If its numbers are no floats, are not as many as its shape says, or its name was there before.
    fn add(
        &mut self,
        name: &str,
        shape: &[usize],
        floats: Option<Floats>,
        found: &str,
        bytes: &[u8],
    ) -> Result<(), String> {
        // PyTorch's batch norms count batches, for averages that nothing here asks for.
        if name.rsplit('.').next() == Some("num_batches_tracked") {
            return Ok(());
        }
        let floats = floats.ok_or_else(|| {
            format!("array {name}: holds {found}, expected floats of 16, 32 or 64 bits")
        })?;
        let size = shape.iter().try_fold(floats.size(), |size, &n| size.checked_mul(n));
        if size != Some(bytes.len()) {
            let found = bytes.len();
            return Err(format!("array {name}: {found} bytes of data for the shape {shape:?}"));
        }
        match self.arrays.insert(name.into(), Tensor::new(shape, floats.read(bytes))) {
            None => Ok(()),
            Some(_) => Err(format!("array {name} stands there twice")),
        }
    }
}

/// How floats lie in a file, the lowest byte first.
#[derive(Clone, Copy)]
enum Floats {
    F16,
    /// The upper half of an `f32`.
    Bf16,
    F32,
    F64,
}

impl Floats {
    /// Bytes of one.
    fn size(self) -> usize {
        match self {
            Floats::F16 | Floats::Bf16 => 2,
            Floats::F32 => 4,
            Floats::F64 => 8,
        }
    }

    /// All of them in 32 bits, which is exact for 16, and the nearest one for 64.
    fn read(self, bytes: &[u8]) -> Vec<f32> {
        fn each<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
            bytes.as_chunks().0.iter().map(|&x| read(x)).collect()
        }
        match self {
            Floats::F16 => each(bytes, |x| half::f16::from_le_bytes(x).to_f32()),
            Floats::Bf16 => each(bytes, |x| half::bf16::from_le_bytes(x).to_f32()),
            Floats::F32 => each(bytes, f32::from_le_bytes),
            Floats::F64 => each(bytes, |x| f64::from_le_bytes(x) as f32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    const FORMS: [&str; 2] = ["x.npz", "x.safetensors"];

    fn sample(path: &Path) {
        let x = Tensor::new([2, 3], vec![1.0, -2.5, -0.0, 4.0, f32::MIN_POSITIVE, 6.0]);
        let (s, none) = (Tensor::scalar(7.0), Tensor::new([3, 0], vec![]));
        let arrays = [("a.weight", &x), ("s", &s), ("none", &none)];
        save(path, arrays, &[("meta.json", "{\"é\": 1}")]).unwrap();
    }

    fn refused(path: &Path) -> String {
        let message = load(path).unwrap_err().to_string();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(message.contains(name), "{message}");
        message
    }

    /// A file of that name with these bytes, in a folder that lives as long as the first of both.
    fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        for name in FORMS {
            let path = dir.path().join(name);
            sample(&path);
            let contents = load(&path).unwrap();
            assert_eq!(contents.arrays.len(), 3);
            let x = &contents.arrays["a.weight"];
            assert_eq!((x.shape(), x[4]), (&[2, 3][..], f32::MIN_POSITIVE));
            assert!(x[2].is_sign_negative());
            assert_eq!(contents.arrays["s"].item(), 7.0);
            assert_eq!(contents.arrays["none"].shape(), [3, 0]);
            assert_eq!(contents.texts["meta.json"], "{\"é\": 1}");
        }
    }

    #[test]
    fn every_truncation_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        for name in FORMS {
            let path = dir.path().join(name);
            sample(&path);
            let whole = std::fs::read(&path).unwrap();
            for len in (0..whole.len()).step_by(7) {
                std::fs::write(&path, &whole[..len]).unwrap();
                refused(&path);
            }
            std::fs::write(&path, [&whole[..], b"and more"].concat()).unwrap();
            if name.ends_with("safetensors") {
                refused(&path);
            }
        }
    }

    #[test]
    fn every_byte_may_be_wrong() {
        // Whatever it means, it is an error or numbers, and no panic.
        let dir = tempfile::tempdir().unwrap();
        for name in FORMS {
            let path = dir.path().join(name);
            sample(&path);
            let whole = std::fs::read(&path).unwrap();
            for at in 0..whole.len() {
                let mut bytes = whole.clone();
                bytes[at] ^= [0x01, 0x80, 0xff][at % 3];
                std::fs::write(&path, &bytes).unwrap();
                let _ = load(&path);
            }
        }
    }

    #[test]
    fn other_files_are_refused() {
        let (_dir, path) = file("x.pth", b"PK\x03\x04");
        assert!(refused(&path).contains("expected a file .npz or .safetensors"));
        assert!(save(&path, [], &[]).unwrap_err().to_string().contains("x.pth"));
        for name in FORMS {
            for bytes in [&b""[..], b"no archive at all", &[0; 64], &[255; 64]] {
                let (_dir, path) = file(name, bytes);
                refused(&path);
            }
            let dir = tempfile::tempdir().unwrap();
            refused(&dir.path().join(name));
        }
    }

    #[test]
    fn halves_become_the_same_floats() {
        let f16 = [0x3c00u16, 0xc000, 0x0001, 0x7bff, 0x8000, 0x3555];
        let bytes: Vec<u8> = f16.iter().flat_map(|x| x.to_le_bytes()).collect();
        let smallest = (2f32).powi(-24);
        let expected = [1.0, -2.0, smallest, 65504.0, -0.0, 0.333_251_95];
        assert_eq!(Floats::F16.read(&bytes), expected);
        let bf16 = [0x3f80u16, 0xc000, 0x0001, 0x7f7f];
        let bytes: Vec<u8> = bf16.iter().flat_map(|x| x.to_le_bytes()).collect();
        let expected = bf16.map(|x| f32::from_bits(u32::from(x) << 16));
        assert_eq!(Floats::Bf16.read(&bytes), expected);
        let bytes: Vec<u8> = [0.1f64, -1e-50].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(Floats::F64.read(&bytes), [0.1, -0.0]);
    }
}
