//! The promise: a file that is cut off, damaged, of another version or made to do harm gets an error of
//! one line that says what is wrong with it; what is accepted runs, in no more memory than it owns up to.

use dirnet_engine::{Graph, Load, MAGIC, Numbers, Op, Packed, Source};
use fuzz::{FRONT, SEEDS, apart, edited, file, file_at, is_small, run, sealed};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

/// Counts what is allocated, and the most there ever was.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is left to the system's allocator; the counters change nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(now, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What a test holds while it allocates, so that each counts its own bytes alone.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(|e| e.into_inner())
}

/// The most bytes that there were at a time beyond those at the start.
fn peak<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.load(Relaxed);
    MOST.store(before, Relaxed);
    let value = f();
    (value, MOST.load(Relaxed).saturating_sub(before))
}

const MB: usize = 1 << 20;

/// Reads a file, which must be refused in one short line, in little memory.
fn refused(file: &[u8]) -> String {
    let (read, bytes) = peak(|| Packed::from_bytes(file));
    let message = read.expect_err("refused").to_string();
    assert!(bytes < 40 * MB + 40 * file.len(), "{bytes} bytes for a file of {}", file.len());
    assert!(message.lines().count() == 1 && message.len() < 2000, "{message}");
    message
}

fn seed(name: &str) -> &'static [u8] {
    SEEDS.iter().find(|(seed, _)| *seed == name).expect("a seed").1
}

fn parts(name: &str) -> (Value, Vec<u8>) {
    let (header, arrays) = apart(seed(name));
    (serde_json::from_slice(&header).unwrap(), arrays)
}

#[test]
fn seeds_are_read_and_run() {
    let _alone = alone();
    for (name, bytes) in SEEDS {
        let packed = Packed::from_bytes(bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(Packed::from_bytes(&packed.to_bytes()).unwrap(), packed, "{name}");
        assert!(is_small(&packed), "{name}");
        run(packed);
    }
}

#[test]
fn every_truncation_is_refused() {
    let _alone = alone();
    let whole = seed("darts");
    for len in 0..whole.len() {
        let message = refused(&whole[..len]);
        let words = match len {
            0..8 => "ends within its first 8 bytes",
            8..FRONT => "ends within its checksum",
            _ => "is damaged or incomplete",
        };
        assert!(message.contains(words), "{len}: {message}");
        if len >= FRONT {
            refused(&sealed(&whole[FRONT..len]));
        }
    }
}

#[test]
fn every_flipped_byte_is_refused_or_harmless() {
    let _alone = alone();
    let whole = seed("darts");
    let header = u32::from_le_bytes(*whole[FRONT..].first_chunk().unwrap());
    let mut refusals = 0;
    for at in 0..whole.len() {
        let mut file = whole.to_vec();
        file[at] ^= 0x41;
        refused(&file);
        if at < FRONT {
            continue;
        }
        match Packed::from_bytes(&sealed(&file[FRONT..])) {
            Ok(packed) => {
                assert_ne!(packed, Packed::from_bytes(whole).unwrap(), "byte {at} says nothing");
                if at % 16 == 0 {
                    run(packed);
                }
            }
            Err(error) => {
                assert_eq!(error.to_string().lines().count(), 1, "{error}");
                refusals += 1;
            }
        }
    }
    assert!(refusals > header * 9 / 10, "{refusals}, with a header of {header} bytes");
}

/// A change to the header of a seed, and words that the message must have.
type Fault = (&'static str, fn(&mut Value), &'static [&'static str]);

fn find(header: &mut Value, op: &str) -> usize {
    let nodes = header["nodes"].as_array().unwrap();
    let named = |node: &Value| node["op"] == op || node["op"].get(op).is_some();
    nodes.iter().position(named).unwrap_or_else(|| panic!("the seed has no {op}"))
}

fn node<'a>(header: &'a mut Value, op: &str) -> &'a mut Value {
    let at = find(header, op);
    &mut header["nodes"][at]
}

fn attributes<'a>(header: &'a mut Value, op: &str) -> &'a mut Value {
    &mut node(header, op)["op"][op]
}

/// The array that a node reads as an input.
fn array<'a>(header: &'a mut Value, op: &str, input: usize) -> &'a mut Value {
    let at = node(header, op)["inputs"][input]["numbers"].as_u64().unwrap() as usize;
    &mut header["numbers"][at]
}

fn push(header: &mut Value, op: Value, inputs: Value, shape: Value) {
    let node = json!({"op": op, "inputs": inputs, "layer": "new", "shape": shape, "axis": 0});
    header["nodes"].as_array_mut().unwrap().push(node);
}

/// Puts an operation on the images in place of the whole network.
fn only(header: &mut Value, op: Value, shape: Value) {
    header["nodes"].as_array_mut().unwrap().truncate(1);
    push(header, op, json!([{"node": 0}]), shape);
}

#[rustfmt::skip]
const FAULTS: &[Fault] = &[
    // The header as such.
    ("resnet20", |h| h["more"] = json!(1), &["wrong header", "unknown field `more`"]),
    ("resnet20", |h| h["card"]["more"] = json!(1), &["unknown field `more`"]),
    ("resnet20", |h| h["nodes"][1]["more"] = json!(1), &["unknown field `more`"]),
    ("resnet20", |h| h["numbers"][1]["more"] = json!(1), &["unknown field `more`"]),
    ("resnet20", |h| attributes(h, "conv2d")["more"] = json!(1), &["unknown field `more`"]),
    ("resnet20", |h| attributes(h, "bin_conv2d")["more"] = json!(1), &["unknown field `more`"]),
    ("resnet20", |h| attributes(h, "bin_conv2d")["then"] = json!({"scale": 1}), &["wrong header"]),
    ("resnet20", |h| _ = h.as_object_mut().unwrap().remove("numbers"), &["missing field `numbers`"]),
    ("resnet20", |h| _ = h["card"].as_object_mut().unwrap().remove("std"), &["missing field `std`"]),
    ("resnet20", |h| _ = attributes(h, "conv2d").as_object_mut().unwrap().remove("pad"), &["missing field `pad`"]),
    ("resnet20", |h| _ = attributes(h, "bin_conv2d").as_object_mut().unwrap().remove("pad"), &["missing field `pad`"]),
    ("resnet20", |h| h["nodes"][1]["op"] = json!("no\nsuch"), &["unknown variant `no\\nsuch`"]),
    ("resnet20", |h| h["nodes"][1]["op"] = json!("x".repeat(100_000)), &["unknown variant `xxx", "…"]),
    ("resnet20", |h| h["numbers"][0]["form"] = json!("i4"), &["unknown variant `i4`", "`levels`"]),
    ("resnet20", |h| h["nodes"][1]["axis"] = json!(-1), &["invalid value: integer `-1`"]),
    ("resnet20", |h| h["nodes"][1]["shape"] = json!(1e300), &["wrong header"]),
    ("resnet20", |h| for _ in 0..1000 { *h = json!([h.take()]) }, &["wrong header"]),
    // The card.
    ("resnet20", |h| h["card"]["classes"] = json!(["a"]), &["names 1 classes, computes 4"]),
    ("resnet20", |h| h["card"]["classes"] = json!(vec!["a"; 1 << 20]), &["header of more than 4194304 bytes"]),
    ("resnet20", |h| h["card"]["classes"] = json!(vec![""; 1 << 20]), &["names 1048576 classes, computes 4"]),
    ("resnet20", |h| h["card"]["classes"][2] = json!("a\nb"), &["a text \"a\\nb\"", "control character"]),
    ("resnet20", |h| h["card"]["arch"] = json!("x".repeat(5000)), &["a text of 5000 bytes", "at most 4096"]),
    ("resnet20", |h| h["card"]["mean"] = json!([0.1, 0.2]), &["2 means and 1 deviations for 1 channels"]),
    ("resnet20", |h| h["card"]["std"][0] = json!(0.0), &["deviation 0 for channel 0", "above 0"]),
    ("resnet20", |h| h["card"]["std"][0] = json!(-1.0), &["deviation -1 for channel 0", "above 0"]),
    ("resnet20", |h| h["card"]["mean"][0] = json!(1e39), &["wrong header", "number out of range"]),
    // Arrays.
    ("resnet20", |h| h["numbers"][1]["name"] = h["numbers"][0]["name"].clone(), &["two arrays named"]),
    ("resnet20", |h| h["numbers"][0]["name"] = json!("a\u{7}"), &["array \"a\\u{7}\"", "control character"]),
    ("resnet20", |h| h["numbers"][0]["name"] = json!("é".repeat(5000)), &["an array of 10000 bytes", "at most 4096"]),
    ("resnet20", |h| h["numbers"][0]["shape"] = json!([]), &["bytes behind its last array"]),
    ("resnet20", |h| h["numbers"][0]["shape"] = json!([0, 3]), &["the shape [0, 3], expected 1 to 67108864 numbers"]),
    ("resnet20", |h| h["numbers"][0]["shape"] = json!([u64::MAX, u64::MAX]), &["the shape [18446744073709551615"]),
    ("resnet20", |h| h["numbers"][0]["shape"] = json!([1u64 << 32, 1u64 << 32]), &["the shape [4294967296"]),
    ("resnet20", |h| h["numbers"][0]["shape"] = json!([1 << 26, 2]), &["expected 1 to 67108864 numbers"]),
    ("resnet20", |h| h["numbers"][0]["shape"] = json!([1 << 26]), &["bytes, and", "are left"]),
    ("resnet20", |h| h["numbers"][0]["shape"] = json!(vec![1; 100_000]), &["has 100000 axes, expected at most 8"]),
    ("resnet20", |h| _ = h["numbers"].as_array_mut().unwrap().pop(), &["bytes behind its last array"]),
    ("resnet20", |h| array(h, "conv2d", 1)["form"] = json!("thresholds"), &["array"]),
    // Nodes as such.
    ("resnet20", |h| h["nodes"] = json!([]), &["has 0 nodes, expected 1 to 16384"]),
    ("resnet20", |h| for _ in 0..20_000 { push(h, json!("relu"), json!([{"node": 0}]), json!([1])) }, &["nodes, expected 1 to 16384"]),
    ("resnet20", |h| h["nodes"][0]["op"] = json!("relu"), &["node 0", "comes first and is no input"]),
    ("resnet20", |h| h["nodes"][1]["op"] = json!("input"), &["node 1", "is an input, and not the first node"]),
    ("resnet20", |h| h["nodes"][0]["shape"] = json!([1, 16, 16]), &["images of [1, 16, 16], expected 1 C H W"]),
    ("resnet20", |h| h["nodes"][0]["shape"] = json!([2, 1, 16, 16]), &["images of [2, 1, 16, 16]"]),
    ("resnet20", |h| h["nodes"][0]["shape"] = json!([1, 1, 1 << 14, 1 << 14]), &["expected 1 to 67108864 numbers"]),
    ("resnet20", |h| h["nodes"][0]["axis"] = json!(1), &["axis 1 for its batch, expected 0"]),
    ("resnet20", |h| h["nodes"][1]["axis"] = json!(9), &["axis 9 of [1"]),
    ("resnet20", |h| h["nodes"][1]["axis"] = json!(2), &["axis 2 of [1"]),
    ("resnet20", |h| h["nodes"][1]["layer"] = json!("l".repeat(4097)), &["node 1 has a layer of 4097 bytes"]),
    ("resnet20", |h| h["nodes"][1]["layer"] = json!("a\nb"), &["a layer \"a\\nb\""]),
    ("resnet20", |h| h["nodes"][1]["shape"] = json!([]), &["node 1", "axis 0 of []"]),
    ("resnet20", |h| h["nodes"][2]["inputs"][0] = json!({"node": 2}), &["node 2", "reads node 2, expected one before it"]),
    ("resnet20", |h| h["nodes"][2]["inputs"][0] = json!({"node": u64::MAX}), &["reads node 18446744073709551615"]),
    ("resnet20", |h| h["nodes"][1]["inputs"][1] = json!({"numbers": 999}), &["reads array 999, and there are"]),
    ("resnet20", |h| h["nodes"][1]["inputs"][1] = json!({"node": 0}), &["reads a node for input 1, expected an array"]),
    ("resnet20", |h| _ = h["nodes"][1]["inputs"].as_array_mut().unwrap().pop(), &["has 1 inputs, expected 2"]),
    ("resnet20", |h| h["nodes"][1]["inputs"] = json!([]), &["has 0 inputs, expected 2"]),
    ("resnet20", |h| h["nodes"][1]["shape"] = json!([1, 3, 5, 7]), &["says [1, 3, 5, 7], makes [1,"]),
    ("resnet20", |h| only(h, json!("concat"), json!([1, 1, 16, 16])), &["array", "that nobody reads"]),
    ("resnet20", |h| { let at = find(h, "bin_conv2d"); h["nodes"].as_array_mut().unwrap().truncate(at + 1) }, &["makes signs, expected floats of the last node"]),
    ("resnet20", |h| { let at = find(h, "bin_conv2d"); push(h, json!("relu"), json!([{"node": at}]), h["nodes"][at]["shape"].clone()) }, &["which makes signs, for more"]),
    // Attributes and forms.
    ("resnet20", |h| attributes(h, "conv2d")["stride"] = json!(0), &["at least 1"]),
    ("resnet20", |h| attributes(h, "conv2d")["dilation"] = json!(0), &["at least 1"]),
    ("resnet20", |h| attributes(h, "conv2d")["groups"] = json!(0), &["at least 1"]),
    ("resnet20", |h| attributes(h, "conv2d")["groups"] = json!(7), &["7 groups do not divide"]),
    ("resnet20", |h| attributes(h, "conv2d")["stride"] = json!(u64::MAX), &["expected at most 1024"]),
    ("resnet20", |h| attributes(h, "conv2d")["pad"] = json!(1u64 << 62), &["expected at most 1024"]),
    ("resnet20", |h| attributes(h, "bin_conv2d")["dilation"] = json!(1u64 << 40), &["expected at most 1024"]),
    ("resnet20", |h| attributes(h, "bin_conv2d")["dilation"] = json!(1000), &["larger than the padded image"]),
    ("resnet20", |h| attributes(h, "bin_conv2d")["then"] = json!("scale"), &["of thresholds for input 2, expected floats"]),
    ("resnet20", |h| array(h, "bin_conv2d", 1)["form"] = json!("f32"), &["bytes, and"]),
    ("resnet20", |h| node(h, "bin_conv2d")["inputs"][2] = node(h, "bin_conv2d")["inputs"][1].clone(), &["of signs for input 2, expected thresholds"]),
    ("darts", |h| only(h, json!({"clamp": {"low": 1.0, "high": -1.0}}), json!([1, 1, 16, 16])), &["clamps from 1 to -1"]),
    ("darts", |h| only(h, json!({"clamp": {"low": -1e39, "high": 1.0}}), json!([1, 1, 16, 16])), &["number out of range"]),
    ("darts", |h| only(h, json!({"scale": {"factor": 1e39}}), json!([1, 1, 16, 16])), &["number out of range"]),
    ("darts", |h| only(h, json!({"shift": {"by": null}}), json!([1, 1, 16, 16])), &["wrong header", "null"]),
    ("darts", |h| only(h, json!({"subsample": {"start": 0, "step": 0}}), json!([1, 1, 16, 16])), &["a step of 0, expected 1 to 1024"]),
    ("darts", |h| only(h, json!({"subsample": {"start": 1u64 << 40, "step": 1}}), json!([1, 1, 16, 16])), &["expected at most 1024"]),
    ("darts", |h| only(h, json!({"narrow": {"start": u64::MAX}}), json!([1, 1, 16, 16])), &["takes 1 channels from 18446744073709551615 on"]),
    ("darts", |h| only(h, json!({"pad_channels": {"before": u64::MAX}}), json!([1, 1, 16, 16])), &["makes 1 channels of 18446744073709551615 and 1"]),
    ("darts", |h| only(h, json!({"max_pool2d": {"size": 16, "stride": 1, "pad": 0}}), json!([1, 1, 1, 1])), &["at most 15 by 15"]),
    ("darts", |h| only(h, json!({"max_pool2d": {"size": 2, "stride": 0, "pad": 0}}), json!([1, 1, 8, 8])), &["at least 1"]),
    ("darts", |h| only(h, json!({"max_pool2d": {"size": 2, "stride": 2, "pad": 2}}), json!([1, 1, 9, 9])), &["at most half of a window is padding"]),
    ("darts", |h| only(h, json!({"avg_pool2d": {"size": 3, "stride": 1 << 30, "pad": 0}}), json!([1, 1, 1, 1])), &["expected at most 1024"]),
    ("darts", |h| only(h, json!("global_avg_pool"), json!([1, 2])), &["says [1, 2], makes [1, 1] of 1 images"]),
    ("darts", |h| only(h, json!("reshape"), json!([1, 255])), &["makes [1, 255] of [1, 1, 16, 16]"]),
    ("darts", |h| only(h, json!("linear"), json!([1, 16])), &["has 1 inputs, expected 2"]),
    ("darts", |h| only(h, json!("mul_pixels"), json!([1, 16])), &["has 1 inputs, expected 2"]),
    ("darts", |h| { only(h, json!("concat"), json!([1])); h["nodes"][1]["inputs"] = json!([]) }, &["has 0 inputs, expected at least 1"]),
];

#[test]
fn each_fault_is_named() {
    let _alone = alone();
    let mut wrong = Vec::new();
    for (at, (name, spoil, words)) in FAULTS.iter().enumerate() {
        let (mut header, arrays) = parts(name);
        spoil(&mut header);
        let file = file(&serde_json::to_vec(&header).unwrap(), &arrays);
        let message = match Packed::from_bytes(&file) {
            Ok(_) => "accepted".into(),
            Err(_) => refused(&file),
        };
        if !words.iter().all(|word| message.contains(word)) {
            wrong.push(format!("fault {at}, expected {words:?}: {message}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_stands_before_the_header_is_checked() {
    let _alone = alone();
    let whole = seed("darts");
    let with = |at: usize, byte: u8| {
        let mut file = whole.to_vec();
        file[at] = byte;
        refused(&file)
    };
    assert_eq!(with(0, b'Z'), "is no packed network: it does not begin with DIRNET");
    assert_eq!(with(7, MAGIC[7] + 1), "is of version 2, expected 1");
    assert_eq!(with(20, !whole[20]), "is damaged or incomplete: its checksum is another");
    let with = |size: u32, body: &[u8]| refused(&sealed(&[&size.to_le_bytes()[..], body].concat()));
    assert_eq!(refused(&sealed(&[1, 2, 3])), "ends before its header");
    assert_eq!(with(u32::MAX, b"abc"), "has a header of 4294967295 bytes, and 3 are left");
    assert!(with(3, b"abc").contains("has a header that can't be unpacked"));
    assert!(with(0, b"").contains("has a header that can't be unpacked"));
    // A stream that ends before its bytes do.
    let size = u32::from_le_bytes(*whole[FRONT..].first_chunk().unwrap());
    let (header, arrays) = whole[FRONT + 4..].split_at(size as usize);
    let message = with(size + 2, &[header, &[0, 0], arrays].concat());
    assert_eq!(message, format!("has a header of {} bytes, of which {size} serve", size + 2));
}

#[test]
fn a_header_that_grows_a_thousandfold_is_not_unpacked() {
    let _alone = alone();
    let bomb = file_at(flate2::Compression::fast(), &vec![b' '; 1 << 28], &[]);
    assert!(bomb.len() < 4 * MB);
    assert_eq!(refused(&bomb), "has a header of more than 4194304 bytes once unpacked");
    assert!(refused(&file(&vec![b'['; 4 * MB], &[])).contains("wrong header"));
    let deep = [b"{\"card\":".repeat(1000), b"1".to_vec()].concat();
    assert!(refused(&file(&deep, &[])).contains("wrong header"));
}

#[test]
fn arrays_are_what_they_say() {
    let _alone = alone();
    let (header, arrays) = parts("resnet20");
    let refuse = |arrays: &[u8]| refused(&file(&serde_json::to_vec(&header).unwrap(), arrays));
    assert!(refuse(&[&arrays[..], &[0; 7]].concat()).contains("has 7 bytes behind its last array"));
    assert!(refuse(&arrays[..arrays.len() - 1]).contains("are left"));
    // All bits set: floats that are none, and bits behind the last.
    assert!(refuse(&vec![0xFF; arrays.len()]).contains("not finite"));
    let (mut header, _) = parts("darts");
    only(&mut header, json!({"linear": null}), json!([1, 4]));
    let array = json!([{"name": "w", "shape": [3], "form": "signs"}]);
    header["numbers"] = array;
    header["nodes"][1]["op"] = json!("mul_channels");
    let message = refused(&file(&serde_json::to_vec(&header).unwrap(), &[0b1000]));
    assert_eq!(message, "array w: has bits set behind its last number");
}

/// A network of one operation on images of a shape, with arrays of zeros.
fn lone(op: Value, x: [usize; 4], y: &[usize], arrays: &[(&[usize], &str, usize)]) -> Vec<u8> {
    let mut inputs = vec![json!({"node": 0})];
    inputs.extend((0..arrays.len()).map(|i| json!({"numbers": i})));
    let entry = |(i, (shape, form, _)): (usize, &(&[usize], &str, usize))| json!({"name": format!("w{i}"), "shape": shape, "form": form});
    let header = json!({
        "card": {"version": "", "arch": "", "method": "", "estimator": "", "data": "",
            "classes": vec!["", "", "", ""], "mean": vec![0.0; x[1]], "std": vec![1.0; x[1]]},
        "nodes": [
            {"op": "input", "inputs": [], "layer": "", "shape": x, "axis": 0},
            {"op": op, "inputs": inputs, "layer": "new", "shape": y, "axis": 0}
        ],
        "numbers": arrays.iter().enumerate().map(entry).collect::<Vec<_>>(),
    });
    let bytes = arrays.iter().map(|(.., bytes)| bytes).sum();
    file(&serde_json::to_vec(&header).unwrap(), &vec![0; bytes])
}

#[test]
fn small_files_that_ask_for_much_are_refused() {
    let _alone = alone();
    let conv = |stride: usize, pad: usize, dilation: usize, groups: usize| json!({"conv2d": {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}});
    let binary = |pad: usize, dilation: usize| {
        json!({"bin_conv2d": {"stride": 1, "pad": pad, "dilation": dilation, "groups": 1,
            "outside": "zero", "then": "scale"}})
    };
    let side = 1 << 13;
    let refuse = |file: &[u8], words: &str| {
        let message = refused(file);
        assert!(message.contains(words), "{message}");
    };
    // Sums of many terms at many pixels, which a bit each pays for.
    let filters: &[usize] = &[1024, 910, 6, 6];
    refuse(
        &lone(
            binary(3, 1),
            [1, 910, 127, 127],
            &[1, 1024, 128, 128],
            &[(filters, "signs", 1024 * 910 * 36 / 8), (&[1024], "f32", 4096)],
        ),
        "operations an image",
    );
    // A filter of one tap for each pixel, laid out for each of many taps.
    refuse(
        &lone(
            binary(90, 1),
            [1, 1, side, side],
            &[1, 1, side, side],
            &[(&[1, 1, 181, 181], "signs", (181 * 181usize).div_ceil(8)), (&[1], "f32", 4)],
        ),
        "needs room for",
    );
    refuse(
        &lone(
            binary(0, 1),
            [1, 32768, 1, 1],
            &[1, 1, 1, 1],
            &[(&[1, 32768, 1, 1], "signs", 4096), (&[1], "f32", 4)],
        ),
        "has sums of 32768 terms, expected at most 32767",
    );
    // Padding about pixels that are hardly there.
    refuse(
        &lone(
            conv(1, 1024, 1, 1),
            [1, 4096, 1, 1],
            &[1, 1, 2049, 2049],
            &[(&[1, 4096, 1, 1], "levels", 8 + 512)],
        ),
        "needs room for",
    );
    // Means over windows, with a filter of ones for each of many channels.
    refuse(
        &lone(
            json!({"avg_pool2d": {"size": 15, "stride": 15, "pad": 7}}),
            [1, 1 << 21, 1, 1],
            &[1, 1 << 21, 1, 1],
            &[],
        ),
        // The card's numbers alone fill the header.
        "header of more than",
    );
    let graph = |nodes: Vec<(Op, Vec<Source>, Vec<usize>)>, numbers| Graph {
        nodes: nodes
            .into_iter()
            .map(|(op, inputs, shape)| dirnet_engine::Node {
                op,
                inputs,
                layer: String::new(),
                shape,
                axis: 0,
            })
            .collect(),
        numbers,
    };
    let image = vec![1, 1, side, side];
    let input = (Op::Input, vec![], image.clone());
    // Many outputs that are all read in the end.
    let relu = |_| (Op::Relu, vec![Source::Node(0)], image.clone());
    let mut nodes: Vec<_> = std::iter::once(input).chain((0..1000).map(relu)).collect();
    let all = (1..=1000).map(Source::Node).collect();
    nodes.push((Op::Concat, all, vec![1, 1000, side, side]));
    assert!(graph(nodes, vec![]).check().unwrap_err().contains("expected 1 to 67108864 numbers"));
    // One array that many nodes want as floats of their own.
    let numbers = Numbers::floats("w", &[1 << 12, 1 << 12], vec![0.0; 1 << 24]).levels();
    let flat = (Op::Reshape, vec![Source::Node(0)], vec![1, 1 << 12]);
    let input = (Op::Input, vec![], vec![1, 1, 64, 64]);
    let linear =
        |i: usize| (Op::Linear, vec![Source::Node(1 + i), Source::Numbers(0)], vec![1, 1 << 12]);
    let nodes: Vec<_> = [input, flat].into_iter().chain((0..16).map(linear)).collect();
    let message = graph(nodes, vec![numbers]).check().unwrap_err();
    assert!(message.contains("needs room for"), "{message}");
    // A chain that takes long: each node little, all of them much.
    let half = vec![1, 1, side / 2, side];
    let one = (Op::Input, vec![], half.clone());
    let chain = (0..16_000).map(|i| (Op::Tanh, vec![Source::Node(i)], half.clone()));
    let message = graph([one].into_iter().chain(chain).collect(), vec![]).check().unwrap_err();
    assert!(message.contains("operations an image"), "{message}");
}

#[test]
fn arrays_made_by_hand_are_checked_too() {
    let _alone = alone();
    use dirnet_engine::{Bits, Values};
    let check = |shape: &[usize], values: Values| {
        let numbers = Numbers { name: "w".into(), shape: shape.to_vec(), values };
        numbers.check()
    };
    assert_eq!(check(&[2, 2], Values::I8(vec![1.0; 2], vec![0; 4])), Ok(()));
    assert!(check(&[2, 2], Values::F32(vec![0.0; 3])).unwrap_err().contains("array w"));
    assert!(check(&[2, 2], Values::I8(vec![1.0; 3], vec![0; 4])).is_err());
    assert!(check(&[2, 2], Values::I8(vec![1e38; 2], vec![127; 4])).is_err());
    assert!(check(&[2, 2], Values::Signs(Bits::new([true; 5]))).is_err());
    assert!(check(&[2, 2], Values::Levels(vec![[0.0, 1.0]], Bits::new([true; 4]))).is_err());
    assert!(check(&[1], Values::F32(vec![f32::NAN])).unwrap_err().contains("not finite"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn an_edited_file_is_refused_or_runs_in_the_memory_it_owns_up_to(
        choices in proptest::collection::vec(any::<u8>(), 1..96)
    ) {
        let _alone = alone();
        let (read, bytes) = peak(|| edited(&choices));
        prop_assert!(bytes < 40 * MB, "{bytes} bytes to read an edited file");
        match read {
            Ok(packed) if is_small(&packed) => {
                let Load { numbers, .. } = packed.graph.load();
                let batch = 2;
                let ((), bytes) = peak(|| run(packed));
                prop_assert!(bytes < MB + 4 * batch * numbers as usize, "{bytes} for {numbers}");
            }
            Ok(_) => {}
            Err(error) => prop_assert_eq!(error.to_string().lines().count(), 1, "{}", error),
        }
    }
}

#[test]
fn edits_are_often_accepted_and_every_operation_is_run() {
    let _alone = alone();
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut ran = BTreeMap::<_, usize>::new();
    for _ in 0..2000 {
        let mut byte = |_| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 32) as u8
        };
        let choices: Vec<u8> = (0..64).map(&mut byte).collect();
        let Some(packed) = edited(&choices).ok().filter(is_small) else { continue };
        for node in packed.graph.nodes.iter().filter(|node| node.layer == "new") {
            let name = format!("{:?}", node.op);
            *ran.entry(name.split([' ', '(']).next().unwrap_or_default().to_string())
                .or_default() += 1;
        }
        run(packed);
    }
    assert!(ran.len() > 28, "only {ran:?}");
}
