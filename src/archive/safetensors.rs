//! Named tensors as `safetensors` has them: a header in JSON, then all numbers one after the other. Texts
//! are entries of `__metadata__`.

use super::{Contents, Floats};
use crate::{Error, Tensor, files};
use ::safetensors::tensor::{Dtype, Metadata, View, serialize};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// The longest header that the format has, in bytes.
const MOST_HEADER: u64 = 100_000_000;

/// A tensor to be written.
struct Lent<'a>(&'a Tensor);

impl View for Lent<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        self.0.shape()
    }
    fn data(&self) -> Cow<'_, [u8]> {
        self.0.iter().flat_map(|x| x.to_le_bytes()).collect()
    }
    fn data_len(&self) -> usize {
        4 * self.0.len()
    }
}

pub(super) fn save<'a>(
    path: &Path,
    arrays: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    texts: &[(&str, &str)],
) -> Result<(), Error> {
    let texts = texts.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
    let arrays = arrays.into_iter().map(|(name, tensor)| (name, Lent(tensor)));
    files::write_whole(path, |out| {
        out.write_all(&serialize(arrays, Some(texts)).map_err(io::Error::other)?)
    })
}

pub(super) fn load(path: &Path, mut file: File) -> Result<Contents, Error> {
    let io = |e| Error::io(path, e);
    let broken = |what: &dyn fmt::Display| {
        Error::file(path, format!("not a whole safetensors file: {what}"))
    };
    // Nothing is read before it is known to be there.
    let size = file.metadata().map_err(io)?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| broken(&format!("it has {size} bytes")))?;
    let length = u64::from_le_bytes(length);
    if length > MOST_HEADER.min(size.saturating_sub(8)) {
        return Err(broken(&format!("a header of {length} bytes in a file of {size}")));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(io)?;
    serde_json::from_slice::<UniqueNames>(&header).map_err(|e| broken(&e))?;
    let header: Metadata = serde_json::from_slice(&header).map_err(|e| broken(&e))?;
    let (found, expected) = (size.saturating_sub(8 + length), header.data_len());
    if found != expected as u64 {
        return Err(broken(&format!("{found} bytes of numbers, its header expects {expected}")));
    }
    let texts = header.metadata().clone().unwrap_or_default();
    let mut contents = Contents { texts, ..Contents::default() };
    // They lie side by side in this order.
    for name in header.offset_keys() {
        let Some(tensor) = header.info(&name) else { continue };
        let floats = match tensor.dtype {
            Dtype::F16 => Some(Floats::F16),
            Dtype::BF16 => Some(Floats::Bf16),
            Dtype::F32 => Some(Floats::F32),
            Dtype::F64 => Some(Floats::F64),
            _ => None,
        };
        let mut bytes = vec![0; tensor.data_offsets.1 - tensor.data_offsets.0];
        file.read_exact(&mut bytes).map_err(io)?;
        contents
            .add(&name, &tensor.shape, floats, &tensor.dtype.to_string(), &bytes)
            .map_err(|what| Error::file(path, what))?;
    }
    Ok(contents)
}

/// A header whose names differ, which JSON does not ask for.
struct UniqueNames;

impl<'de> Deserialize<'de> for UniqueNames {
    fn deserialize<D: Deserializer<'de>>(header: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = UniqueNames;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("names of tensors")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<UniqueNames, M::Error> {
                let mut seen = HashSet::new();
                while let Some((name, IgnoredAny)) = map.next_entry::<String, _>()? {
                    if let Some(name) = seen.replace(name) {
                        let what = format!("array {name} stands there twice");
                        return Err(serde::de::Error::custom(what));
                    }
                }
                Ok(UniqueNames)
            }
        }
        header.deserialize_map(Names)
    }
}

#[cfg(test)]
mod tests {
    /// What is said of a file with this header and so many bytes of data.
    fn refused(header: &str, data: usize) -> String {
        refused_bytes(&[&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]])
    }

    fn refused_bytes(parts: &[&[u8]]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        std::fs::write(&path, parts.concat()).unwrap();
        let message = super::super::load(&path).unwrap_err().to_string();
        assert!(message.contains("x.safetensors"), "{message}");
        message
    }

    fn one(kind: &str, shape: &str, offsets: &str) -> String {
        format!(r#"{{"w":{{"dtype":"{kind}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    }

    #[test]
    fn a_header_that_claims_the_world_is_refused() {
        for length in [9u64, 1 << 20, 1 << 40, u64::MAX - 7, u64::MAX] {
            refused_bytes(&[&length.to_le_bytes(), b"{}      "]);
        }
        let world = "[99999999999,99999999999,99999999999]";
        refused(&one("F32", world, "[0,4]"), 4);
        refused(&one("F32", "[4611686018427387904]", "[0,0]"), 0);
        refused(&one("F32", "[18446744073709551615,2,0]", "[0,0]"), 0);
        refused(&one("F32", "[1000000000]", "[0,4000000000]"), 4);
        refused(&one("F32", "[1]", "[18446744073709551612,18446744073709551615]"), 4);
        refused(&one("F32", "[-1]", "[0,4]"), 4);
        // Two sizes whose product is a small number once it has gone round.
        refused(&one("F32", "[4294967296,4294967297]", "[0,16]"), 16);
        refused(&format!("{}1", r#"{"w":"#.repeat(5000)), 4);
    }

    #[test]
    fn data_lie_side_by_side_and_are_whole() {
        let two = |first: &str, second: &str| {
            let w = one("F32", "[1]", first);
            let v = one("F32", "[1]", second).replace('w', "v");
            format!("{},{}", w.trim_end_matches('}').to_string() + "}", &v[1..])
        };
        let dir = tempfile::tempdir().unwrap();
        let (path, sound) = (dir.path().join("x.safetensors"), two("[0,4]", "[4,8]"));
        let length = (sound.len() as u64).to_le_bytes();
        std::fs::write(&path, [&length, sound.as_bytes(), &[0; 8]].concat()).unwrap();
        assert_eq!(super::super::load(&path).unwrap().arrays.len(), 2);

        refused(&two("[0,4]", "[2,6]"), 8);
        refused(&two("[0,4]", "[0,4]"), 4);
        refused(&two("[0,4]", "[8,12]"), 12);
        refused(&two("[4,0]", "[4,8]"), 8);
        refused(&two("[0,4]", "[4,8]"), 7);
        refused(&two("[0,4]", "[4,8]"), 9);
        refused(&one("F32", "[2]", "[0,4]"), 4);
    }

    #[test]
    fn other_types_are_named_with_their_array() {
        for (kind, size) in [("I64", 8), ("U8", 1), ("BOOL", 1), ("F8_E4M3", 1), ("C64", 8)] {
            let message = refused(&one(kind, "[1]", &format!("[0,{size}]")), size);
            assert!(message.contains(&format!("array w: holds {kind}, expected")), "{message}");
        }
        assert!(refused(&one("F31", "[1]", "[0,4]"), 4).contains("F31"));
    }

    #[test]
    fn a_name_stands_there_once() {
        let w = r#""w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
        assert!(refused(&format!("{{{w},{w}}}"), 4).contains("array w stands there twice"));
    }
}
