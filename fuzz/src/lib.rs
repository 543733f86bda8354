//! What the fuzz targets and the engine's own tests do to packed files: take them apart, edit them, put
//! them together again with a checksum that is right, and run what is accepted.

use dirnet_engine::{Broken, MAGIC, Net, Packed};
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};

/// Small packed networks, as `tests/seeds.rs` of the root crate writes them.
pub const SEEDS: [(&str, &[u8]); 4] = [
    ("mlp", include_bytes!("../seeds/mlp.dirnet")),
    ("resnet20", include_bytes!("../seeds/resnet20.dirnet")),
    ("mobilenet", include_bytes!("../seeds/mobilenet.dirnet")),
    ("darts", include_bytes!("../seeds/darts.dirnet")),
];

/// Bytes of a file before its body: the magic and the checksum.
pub const FRONT: usize = 40;

/// A file with this body, and the checksum that is right for it.
pub fn sealed(body: &[u8]) -> Vec<u8> {
    [&MAGIC[..], &Sha256::digest(body)[..], body].concat()
}

/// A file with this header, as a zlib stream, and these arrays.
pub fn file(header: &[u8], arrays: &[u8]) -> Vec<u8> {
    file_at(Compression::none(), header, arrays)
}

/// The same with the header compressed.
pub fn file_at(level: Compression, header: &[u8], arrays: &[u8]) -> Vec<u8> {
    let mut zlib = ZlibEncoder::new(Vec::new(), level);
    zlib.write_all(header).unwrap();
    let zlib = zlib.finish().unwrap();
    sealed(&[&(zlib.len() as u32).to_le_bytes(), &zlib[..], arrays].concat())
}

/// The header of a file, unpacked, and its arrays.
pub fn apart(file: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (size, rest) = file[FRONT..].split_first_chunk().unwrap();
    let (header, arrays) = rest.split_at(u32::from_le_bytes(*size) as usize);
    let mut text = Vec::new();
    ZlibDecoder::new(header).read_to_end(&mut text).unwrap();
    (text, arrays.to_vec())
}

/// Whether a network asks for so little that it is run at once.
pub fn is_small(packed: &Packed) -> bool {
    let load = packed.graph.load();
    load.numbers <= 1 << 22 && load.work <= 1 << 22
}

/// Runs a network that was accepted, if it is small.
pub fn run(packed: Packed) {
    if !is_small(&packed) {
        return;
    }
    let (image, outputs) = (packed.graph.input().iter().product(), packed.graph.outputs());
    let mut net = Net::new(packed.graph, 2).expect("the graph was checked when it was read");
    assert_eq!(net.run(&vec![0.0; 2 * image]).len(), 2 * outputs);
    let odd = [1.0, -1.0, 0.3, -1e30, f32::INFINITY, 2.0, f32::NAN, -0.0];
    let images: Vec<f32> = odd.into_iter().cycle().take(image).collect();
    assert_eq!(net.run(&images).len(), outputs);
}

/// Bytes that choose; zeros when they are used up.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    /// One of `n`.
    fn of(&mut self, n: usize) -> usize {
        let byte = self.0.split_off_first().copied().unwrap_or(0);
        usize::from(byte) % n.max(1)
    }
    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.of(of.len())].clone()
    }
}

/// A seed with the edits that are chosen, read.
pub fn edited(choices: &[u8]) -> Result<Packed, Broken> {
    let mut choices = Choices(choices);
    let (header, mut arrays) = apart(choices.one(&SEEDS).1);
    let mut header = serde_json::from_slice(&header).unwrap();
    // Half of all inputs only add nodes, which are accepted more often and so run.
    let kinds = choices.one(&[4, 1]);
    for _ in 0..1 + choices.of(6) {
        match choices.of(kinds) {
            0 => grow(&mut header, &mut choices),
            1 => edit(&mut header, &mut choices),
            2 => retype(&mut header, &mut choices),
            _ if arrays.is_empty() => {}
            _ => {
                let at = (choices.of(256) * 256 + choices.of(256)) % arrays.len();
                arrays[at] = choices.of(256) as u8;
            }
        }
    }
    mend(header, arrays)
}

/// Reads it, and brings into line what follows from an edit: shapes of nodes, classes, lengths.
fn mend(mut header: Value, mut arrays: Vec<u8>) -> Result<Packed, Broken> {
    loop {
        let read = Packed::from_bytes(&file(&serde_json::to_vec(&header).unwrap(), &arrays));
        let Err(error) = &read else { return read };
        let text = error.to_string();
        let numbers: Vec<u64> = text
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|digits| digits.parse().ok())
            .collect();
        if let Some((_, made)) =
            text.split_once(" of 1 images").and_then(|(t, _)| t.split_once("makes "))
            && let Some(at) = text.strip_prefix("node ").and(numbers.first())
            && let Ok(shape) = serde_json::from_str::<Vec<u64>>(made)
            && shape.iter().product::<u64>() <= 1 << 20
        {
            header["nodes"][*at as usize]["shape"] = json!(shape);
        } else if let (true, Some(&n @ 0..=4096)) =
            (text.contains(" classes, computes "), numbers.last())
        {
            header["card"]["classes"] = json!(vec!["a"; n as usize]);
        } else if let (true, &[.., wanted @ 0..=65536, left]) =
            (text.ends_with("are left"), &numbers[..])
        {
            arrays.extend(vec![0; wanted.saturating_sub(left) as usize]);
        } else if let (true, Some(&n)) = (text.ends_with("behind its last array"), numbers.first())
        {
            arrays.truncate(arrays.len() - n as usize);
        } else {
            return read;
        }
    }
}

/// Numbers at which something might go wrong.
const NUMBERS: [u64; 22] = [
    0,
    1,
    2,
    3,
    4,
    5,
    8,
    15,
    16,
    17,
    1023,
    1024,
    1025,
    32767,
    32768,
    1 << 20,
    1 << 24,
    1 << 26,
    (1 << 26) + 1,
    1 << 32,
    1 << 62,
    u64::MAX,
];

/// Changes one value, somewhere.
fn edit(value: &mut Value, choices: &mut Choices<'_>) {
    match value {
        Value::Object(map) if !map.is_empty() && choices.of(8) > 0 => {
            let key = map.keys().nth(choices.of(map.len())).cloned().unwrap();
            edit(&mut map[&key], choices)
        }
        Value::Array(all) if !all.is_empty() && choices.of(8) > 0 => {
            let at = choices.of(all.len());
            edit(&mut all[at], choices)
        }
        Value::Object(map) => {
            let Some(key) = map.keys().nth(choices.of(map.len())).cloned() else { return };
            let old = map[&key].clone();
            match choices.of(3) {
                0 => _ = map.remove(&key),
                1 => _ = map.insert("more".into(), old),
                _ => *value = old,
            }
        }
        Value::Array(all) => {
            let (at, other) = (choices.of(all.len()), choices.of(all.len()));
            match choices.of(5) {
                0 => all.clear(),
                1 if !all.is_empty() => _ = all.remove(at),
                2 if !all.is_empty() => all.insert(at, all[other].clone()),
                3 if !all.is_empty() => all.swap(at, other),
                _ => all.push(json!(choices.one(&NUMBERS))),
            }
        }
        Value::Number(n) => {
            let n = n.as_f64().unwrap_or_default();
            *value = match choices.of(5) {
                0 => json!((n as u64).saturating_add(1)),
                1 => json!((n as u64).saturating_sub(1)),
                2 => json!(choices.one(&[1e39, -1e39, 1e-46, -0.0, 0.5, -1.0, 1e308])),
                _ => json!(choices.one(&NUMBERS)),
            };
        }
        Value::String(_) => {
            *value = match choices.of(4) {
                0 => json!("x".repeat(choices.of(2) * 300)),
                1 => json!("a\nb\u{0}"),
                2 => json!(choices.one(&["f32", "f16", "i8", "signs", "levels", "thresholds"])),
                _ => json!(choices.one(&["relu", "input", "identity", "minus", "plus", "scale"])),
            }
        }
        _ => *value = json!(choices.one(&NUMBERS)),
    }
}

/// Another operation for a node, and perhaps an attribute of its own.
fn retype(header: &mut Value, choices: &mut Choices<'_>) {
    let Some(nodes) = list(header, "nodes") else { return };
    let at = choices.of(nodes.len());
    let Some(node) = nodes.get_mut(at) else { return };
    let (op, ..) = operation([1, 4, 8, 8], choices);
    let axis = choices.one(&[0, 0, 0, 1, 2]);
    if let Some(node) = node.as_object_mut() {
        node.insert("op".into(), op);
        node.insert("axis".into(), json!(axis));
    }
}

/// One more node behind the last, with arrays of its own.
fn grow(header: &mut Value, choices: &mut Choices<'_>) {
    let Some(nodes) = list(header, "nodes") else { return };
    let back = if choices.of(2) == 0 { 1 } else { 1 + choices.of(nodes.len()) };
    let (last, at) = (nodes.len(), nodes.len().saturating_sub(back));
    let shape: Vec<usize> = nodes.get(at).map_or(vec![], |node| {
        let shape = node["shape"].as_array().cloned().unwrap_or_default();
        shape.iter().map(|n| n.as_u64().unwrap_or(1).clamp(1, 1 << 20) as usize).collect()
    });
    let (x, at) = match *shape.as_slice() {
        [1, c, h, w] => ([1, c, h, w], at),
        [1, c] if choices.of(2) == 0 => ([1, c, 1, 1], at),
        [1, c] => {
            let images = json!({"op": "reshape", "inputs": [{"node": at}], "layer": "as images",
                "shape": [1, c, 1, 1], "axis": 0});
            push(header, "nodes", images);
            ([1, c, 1, 1], last)
        }
        _ => ([1, 1, 1, 1], at),
    };
    let (op, arrays, more) = operation(x, choices);
    let mut inputs = vec![json!({"node": at})];
    for (shape, form) in arrays {
        let there = list(header, "numbers").map_or(0, |all| all.len());
        let name = format!("new {there}");
        push(header, "numbers", json!({"name": name, "shape": shape, "form": form}));
        inputs.push(json!({"numbers": there}));
    }
    for _ in 0..more {
        inputs.push(json!({"node": at - at.min(choices.one(&[0, 0, 0, 1, 2]))}));
    }
    let node = json!({"op": op, "inputs": inputs, "layer": "new", "shape": shape, "axis": 0});
    push(header, "nodes", node);
}

fn list<'a>(header: &'a mut Value, key: &str) -> Option<&'a mut Vec<Value>> {
    header.get_mut(key)?.as_array_mut()
}

fn push(header: &mut Value, key: &str, value: Value) {
    if let Some(all) = list(header, key) {
        all.push(value);
    }
}

type Arrays = Vec<(Vec<usize>, &'static str)>;

/// An operation for images of a shape, the arrays that it reads, and how many nodes beside the first.
fn operation([_, c, h, w]: [usize; 4], choices: &mut Choices<'_>) -> (Value, Arrays, usize) {
    let small = |choices: &mut Choices<'_>| choices.one(&[1, 1, 1, 2, 3, 4, 7, 11]);
    let channel = |form| (vec![c], form);
    let act = |choices: &mut Choices<'_>| choices.one(&["identity", "relu", "hardtanh"]);
    let lone = |op: Value| (op, vec![], 0);
    match choices.of(28) {
        0..8 => {
            let groups = choices
                .one(&[1, 1, c, 2, 3].map(|groups| if c % groups == 0 { groups } else { 1 }));
            let o = groups * choices.one(&[1, 2, 3, 5, 8, 17]);
            let filter = vec![o, c / groups, small(choices).min(h + 1), small(choices).min(w + 1)];
            let pad = choices.one(&[0, 0, 1, 1, 2, 3, 9, 100]);
            let dilation = choices.one(&[1, 1, 1, 2, 3]);
            let mut how = json!({"stride": small(choices), "pad": pad, "dilation": dilation,
                "groups": groups});
            if choices.of(3) == 0 {
                let form = choices.one(&["f32", "f16", "i8", "levels"]);
                return (json!({"conv2d": how}), vec![(filter, form)], 0);
            }
            how["outside"] = json!(choices.one(&["zero", "minus", "plus"]));
            let (then, forms, more): (Value, &[&str], _) = match choices.of(4) {
                0 => (json!("scale"), &["f32"], 0),
                1 => (json!({"affine": {"act": act(choices)}}), &["f32", "f16"], choices.of(2)),
                2 => {
                    let then = json!({"scaled_affine": {"act": act(choices)}});
                    (then, &["f32", "i8", "f32"], choices.of(2))
                }
                _ => (json!("threshold"), &["thresholds"], 0),
            };
            how["then"] = then;
            let mut arrays = vec![(filter, choices.one(&["signs", "f32", "levels"]))];
            arrays.extend(forms.iter().map(|form| (vec![o], *form)));
            (json!({"bin_conv2d": how}), arrays, more)
        }
        8..11 => {
            let size = small(choices);
            let pad = choices.of(1 + size / 2);
            let pool = json!({"size": size, "stride": small(choices), "pad": pad});
            let name = choices.one(&["max_pool2d", "avg_pool2d"]);
            lone(json!({name: pool}))
        }
        11 => (json!("linear"), vec![(vec![5, c], "f32")], 0),
        12 => (json!("bin_linear"), vec![(vec![5, c], "signs"), (vec![5], "f32")], 0),
        13 => {
            let affine = json!({"affine": {"act": act(choices)}});
            (affine, vec![channel("f32"), channel("f32")], choices.of(2))
        }
        14 => {
            let name = choices.one(&["add_channels", "mul_channels", "prelu"]);
            (json!(name), vec![channel("f32")], 0)
        }
        25 => (json!("rprelu"), vec![channel("f32"), channel("f32"), channel("f32")], 0),
        26 => (json!("maxout"), vec![channel("f32"), channel("f32")], 0),
        15 => lone(json!("global_avg_pool")),
        16 => lone(json!({"narrow": {"start": choices.one(&[0, 0, 1, c])}})),
        17 => lone(json!({"pad_channels": {"before": choices.one(&[0, 0, 1, c])}})),
        18 => {
            let [start, step] = [choices.one(&[0, 1, 2, h, w, 1000]), small(choices)];
            lone(json!({"subsample": {"start": start, "step": step}}))
        }
        19 => lone(json!({"clamp": {"low": choices.one(&[-1.0, 0.0, 3.0]), "high": 1.0}})),
        20 => lone(json!({"scale": {"factor": choices.one(&[-1.0, 0.0, 1e30])}})),
        21 => lone(json!({"shift": {"by": choices.one(&[-1.0, 0.0, 1e30])}})),
        22 => (json!(choices.one(&["add", "sub", "mul", "mul_pixels"])), vec![], 1),
        23 => (json!("concat"), vec![], choices.of(4)),
        24 => lone(json!(choices.one(&["relu", "hardtanh", "sigmoid", "tanh", "swish"]))),
        _ => lone(json!(choices.one(&["abs", "binarize", "standardize", "reshape"]))),
    }
}
