//! Named tensors in a file that NumPy reads: `numpy.load(path)["conv1.weight"]`. A text is an array of
//! bytes whose name ends in `.json`.

use super::{Contents, Floats};
use crate::{Error, Tensor, files};
use npyz::WriterBuilder;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use zip::{ZipArchive, ZipWriter, write::SimpleFileOptions};

pub(super) fn save<'a>(
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
    zip: &mut ZipWriter<impl Write + Seek>,
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

pub(super) fn load(path: &Path, file: File) -> Result<Contents, Error> {
    let broken = |what: &dyn Display| Error::file(path, format!("not a whole npz file: {what}"));
    let mut zip = ZipArchive::new(BufReader::new(&file)).map_err(|e| broken(&e))?;
    let listed = listed(&file, zip.central_directory_start()).map_err(|e| broken(&e))?;
    if listed != zip.len() {
        let (all, names) = (listed, zip.len());
        return Err(broken(&format!("{all} arrays of {names} names, expected a name each")));
    }
    let mut contents = Contents::default();
    for i in 0..zip.len() {
        let bad = |what: String| Error::file(path, what);
        let mut member = zip.by_index(i).map_err(|e| bad(e.to_string()))?;
        let name = member.name().map_err(|e| bad(e.to_string()))?.to_string();
        let name = name.strip_suffix(".npy").unwrap_or(&name);
        let bad = |what: String| Error::file(path, format!("array {name}: {what}"));
        // The vector grows with what is really there, whatever the archive says about sizes.
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).map_err(|e| bad(e.to_string()))?;
        let (header, start) = dirnet_datasets::npz::header(&bytes).map_err(bad)?;
        let data = &bytes[start..];
        let shape: Vec<usize> = header.shape().iter().map(|&n| n as usize).collect();
        if header.order() != npyz::Order::C && shape.len() > 1 {
            return Err(bad("is in column-major order, expected row major".into()));
        }
        let found = header.dtype().descr();
        if found == "'|u1'" && name.ends_with(".json") {
            let text = String::from_utf8(data.to_vec()).map_err(|e| bad(e.to_string()))?;
            contents.texts.insert(name.into(), text);
            continue;
        }
        let floats = match found.as_str() {
            "'<f2'" => Some(Floats::F16),
            "'<f4'" => Some(Floats::F32),
            "'<f8'" => Some(Floats::F64),
            _ => None,
        };
        contents.add(name, &shape, floats, &found, data).map_err(|what| Error::file(path, what))?;
    }
    Ok(contents)
}

/// How many members the list at the end of an archive has. The reader keeps one of each name.
fn listed(file: &File, start: u64) -> io::Result<usize> {
    let mut list = BufReader::new(file);
    list.seek(SeekFrom::Start(start))?;
    let (mut count, mut head) = (0, [0; 46]);
    while list.read_exact(&mut head).is_ok() && head.starts_with(b"PK\x01\x02") {
        count += 1;
        // Behind it stand a name, extra fields and a comment.
        let length = |at: usize| i64::from(u16::from_le_bytes([head[at], head[at + 1]]));
        list.seek_relative(length(28) + length(30) + length(32))?;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a file with these members, each a name, a type, a shape and bytes.
    fn refused(members: &[(&str, &str, &str, &[u8])]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npz");
        let mut zip = ZipWriter::new(File::create(&path).unwrap());
        for (name, kind, shape, data) in members {
            let head = format!("{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}");
            let npy =
                [b"\x93NUMPY\x01\0\x76\0", format!("{head:<117}\n").as_bytes(), data].concat();
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(&npy).unwrap();
        }
        zip.finish().unwrap();
        let message = super::super::load(&path).unwrap_err().to_string();
        assert!(message.contains("x.npz"), "{message}");
        message
    }

    #[test]
    fn a_header_that_claims_the_world_is_refused() {
        let sizes = "(99999999999, 99999999999, 99999999999)";
        assert!(refused(&[("w.npy", "'<f4'", sizes, &[0; 4])]).contains("array w"));
        let message = refused(&[("w.npy", "'<f8'", "(999999999, 99999999)", &[0; 8])]);
        assert!(message.contains("array w: 8 bytes of data"), "{message}");
        let message = refused(&[("w.npy", "'<f4'", "(3,)", &[0; 8])]);
        assert!(message.contains("array w: 8 bytes of data for the shape [3]"), "{message}");
    }

    #[test]
    fn other_types_are_named_with_their_array() {
        for kind in ["'<i8'", "'>f4'", "'<c8'", "'|u1'", "'|b1'", "'<U8'", "'|O'"] {
            let message = refused(&[("fc.weight.npy", kind, "(1,)", &[0; 8])]);
            assert!(message.contains("array fc.weight: "), "{message}");
            assert!(message.contains(kind), "{message}");
        }
    }

    #[test]
    fn a_name_stands_there_once() {
        let twice = [("w.npy", "'<f4'", "(1,)", &[0; 4][..]), ("w", "'<f4'", "(1,)", &[0; 4])];
        assert!(refused(&twice).contains("array w stands there twice"));

        // A zip archive may list one name twice, too.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npz");
        let (w, v) = (Tensor::scalar(1.0), Tensor::scalar(2.0));
        super::super::save(&path, [("name.w", &w), ("name.v", &v)], &[]).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        while let Some(at) = bytes.windows(6).position(|name| name == b"name.v") {
            bytes[at + 5] = b'w';
        }
        std::fs::write(&path, bytes).unwrap();
        let message = super::super::load(&path).unwrap_err().to_string();
        assert!(message.contains("x.npz: not a whole npz file: 2 arrays of 1 names"), "{message}");
    }
}
