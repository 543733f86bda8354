//! The file of a packed network. `docs/format.md` has it byte by byte.

use crate::graph::{Graph, Node};
use crate::limits;
use crate::numbers::{Form, Numbers};
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};

/// The first bytes of every such file; the last of them are the version.
pub const MAGIC: [u8; 8] = *b"DIRNET\0\x01";

/// Bytes of a header, unpacked, at most.
const HEADER: u64 = 4 << 20;

/// What a file says of its network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// The version of the program that packed it.
    pub version: String,
    /// The architecture.
    pub arch: String,
    /// How it is binarized.
    pub method: String,
    /// Estimators other than the method's own.
    pub estimator: String,
    /// The data set it was trained on.
    pub data: String,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Subtracted from each channel of an image whose pixels lie in [0, 1].
    pub mean: Vec<f32>,
    /// Divides each channel then.
    pub std: Vec<f32>,
}

impl Card {
    /// Pixels `C H W` of 0 to 255 as the network wants them: `(p/255 - mean) / std`.
    ///
    /// # Panics
    /// If there are not as many as `y` holds, or they do not divide into the channels of the card.
    #[track_caller]
    pub fn normalise(&self, pixels: &[u8], y: &mut [f32]) {
        normalise(&self.mean, &self.std, pixels, y);
    }
}

/// [`Card::normalise`] by means and deviations that stand elsewhere.
///
/// # Panics
/// As there.
#[track_caller]
pub fn normalise(mean: &[f32], std: &[f32], pixels: &[u8], y: &mut [f32]) {
    let area = y.len() / mean.len();
    assert!(pixels.len() == y.len() && area * mean.len() == y.len(), "pixels C H W");
    let planes = pixels.chunks(area).zip(y.chunks_mut(area));
    for ((pixels, y), (mean, std)) in planes.zip(mean.iter().zip(std)) {
        y.iter_mut().zip(pixels).for_each(|(y, &p)| *y = (f32::from(p) / 255.0 - mean) / std);
    }
}

/// A packed network: what it is, and what it says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Packed {
    /// Its name, classes and preprocessing.
    pub card: Card,
    /// Its operations and numbers.
    pub graph: Graph,
}

/// Why a file is no packed network, or none that can be run here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub(crate) String);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    card: Card,
    nodes: Vec<Node>,
    numbers: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    shape: Vec<usize>,
    form: Form,
}

impl Packed {
    /// The bytes of its file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let entry =
            |n: &Numbers| Entry { name: n.name.clone(), shape: n.shape.clone(), form: n.form() };
        let header = Header {
            card: self.card.clone(),
            nodes: self.graph.nodes.clone(),
            numbers: self.graph.numbers.iter().map(entry).collect(),
        };
        let header = serde_json::to_vec(&header).expect("names and finite numbers");
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
        let header = zlib.write_all(&header).and_then(|()| zlib.finish()).expect("memory has room");
        let mut body = Vec::new();
        body.extend(u32::try_from(header.len()).expect("a header below 4 GiB").to_le_bytes());
        body.extend(header);
        self.graph.numbers.iter().for_each(|numbers| numbers.encode(&mut body));
        let mut file = MAGIC.to_vec();
        file.extend(checksum(&body));
        file.extend(body);
        file
    }

    /// Reads a file.
    ///
    /// # Errors
    /// If it is no such file, of another version, damaged or incomplete, or says something that can't be.
    pub fn from_bytes(file: &[u8]) -> Result<Self, Broken> {
        Self::read(file).map_err(Broken)
    }

    fn read(mut file: &[u8]) -> Result<Self, String> {
        let magic = file.split_off(..MAGIC.len()).ok_or("ends within its first 8 bytes")?;
        if magic[..7] != MAGIC[..7] {
            return Err("is no packed network: it does not begin with DIRNET".into());
        }
        if magic[7] != MAGIC[7] {
            return Err(format!("is of version {}, expected {}", magic[7], MAGIC[7]));
        }
        let sum = file.split_off(..32).ok_or("ends within its checksum")?;
        if sum != checksum(file) {
            return Err("is damaged or incomplete: its checksum is another".into());
        }
        Self::read_body(file)
    }

    /// Reads what follows the checksum.
    fn read_body(mut body: &[u8]) -> Result<Self, String> {
        let size = body.split_off(..4).ok_or("ends before its header")?;
        let size = u32::from_le_bytes([size[0], size[1], size[2], size[3]]) as usize;
        let left = body.len();
        let header = body
            .split_off(..size)
            .ok_or_else(|| format!("has a header of {size} bytes, and {left} are left"))?;
        let mut text = Vec::new();
        let mut zlib = ZlibDecoder::new(header);
        let unpacked = zlib.by_ref().take(HEADER + 1).read_to_end(&mut text);
        unpacked.map_err(|e| format!("has a header that can't be unpacked: {e}"))?;
        if text.len() as u64 > HEADER {
            return Err(format!("has a header of more than {HEADER} bytes once unpacked"));
        }
        if zlib.total_in() != size as u64 {
            return Err(format!(
                "has a header of {size} bytes, of which {} serve",
                zlib.total_in()
            ));
        }
        let header: Header = serde_json::from_slice(&text)
            .map_err(|e| format!("has a wrong header: {}", line(&e)))?;
        let mut numbers = Vec::new();
        for Entry { name, shape, form } in &header.numbers {
            numbers.push(Numbers::decode(name, shape, *form, &mut body)?);
        }
        if !body.is_empty() {
            return Err(format!("has {} bytes behind its last array", body.len()));
        }
        let packed = Packed { card: header.card, graph: Graph { nodes: header.nodes, numbers } };
        packed.graph.check()?;
        packed.check_card()?;
        Ok(packed)
    }

    fn check_card(&self) -> Result<(), String> {
        let Card { version, arch, method, estimator, data, classes, mean, std } = &self.card;
        let names = [version, arch, method, estimator, data].into_iter().chain(classes);
        names.into_iter().try_for_each(|name| limits::name("a text", name))?;
        let (input, outputs) = (self.graph.input(), self.graph.outputs());
        if classes.len() != outputs {
            return Err(format!("names {} classes, computes {outputs}", classes.len()));
        }
        let channels = input.first().copied().unwrap_or_default();
        if mean.len() != channels || std.len() != channels {
            let (mean, std) = (mean.len(), std.len());
            return Err(format!("has {mean} means and {std} deviations for {channels} channels"));
        }
        for (channel, (mean, std)) in mean.iter().zip(std).enumerate() {
            if !mean.is_finite() || !std.is_finite() || *std <= 0.0 {
                return Err(format!(
                    "has mean {mean} and deviation {std} for channel {channel}, expected finite \
                     numbers, the latter above 0"
                ));
            }
        }
        Ok(())
    }
}

/// What a parser says, which quotes what it read, on one line that is not too long.
fn line(error: &serde_json::Error) -> String {
    const MOST: usize = 200;
    let text = error.to_string();
    let mut line: String = text
        .chars()
        .take(MOST)
        .flat_map(|c| match c.is_control() {
            true => c.escape_default().collect::<Vec<_>>(),
            false => vec![c],
        })
        .collect();
    if text.chars().nth(MOST).is_some() {
        line.push('…');
    }
    line
}

fn checksum(body: &[u8]) -> [u8; 32] {
    Sha256::digest(body).into()
}
