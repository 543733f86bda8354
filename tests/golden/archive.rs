//! The golden files: arrays by case and name, and a record of which of them were judged.

use dirnet::{Params, Tape, Tensor, Var};
use npyz::NpyFile;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use zip::ZipArchive;

/// `max|found - expected| / max|expected|` that rounding to `f32` may cause in one operation.
pub const TOLERANCE: f64 = 1e-4;

struct Array {
    shape: Vec<usize>,
    numbers: Vec<f64>,
}

/// One file.
pub struct Family {
    name: &'static str,
    arrays: BTreeMap<String, Array>,
    judged: RefCell<BTreeSet<String>>,
    wrong: RefCell<Vec<String>>,
}

/// One folder of arrays in it.
#[derive(Clone, Copy)]
pub struct Case<'f> {
    family: &'f Family,
    pub name: &'f str,
}

impl Family {
    pub fn open(name: &'static str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.npz"));
        let file = File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut zip = ZipArchive::new(file).unwrap();
        let mut arrays = BTreeMap::new();
        for i in 0..zip.len() {
            let mut member = zip.by_index(i).unwrap();
            let key = member.name().unwrap().trim_end_matches(".npy").to_string();
            let mut bytes = Vec::new();
            member.read_to_end(&mut bytes).unwrap();
            let array = NpyFile::new(&*bytes).unwrap();
            let shape = array.shape().iter().map(|&size| size as usize).collect();
            let numbers = match array.dtype().descr().as_str() {
                "'<f4'" => array.into_vec::<f32>().unwrap().into_iter().map(f64::from).collect(),
                "'<f8'" => array.into_vec::<f64>().unwrap(),
                "'<i8'" => array.into_vec::<i64>().unwrap().iter().map(|&x| x as f64).collect(),
                other => panic!("{name}.npz: {key} holds {other}"),
            };
            arrays.insert(key, Array { shape, numbers });
        }
        Family { name, arrays, judged: RefCell::default(), wrong: RefCell::default() }
    }

    /// All cases, by name.
    pub fn cases(&self) -> Vec<Case<'_>> {
        let folders = self.arrays.keys().filter_map(|key| Some(key.split_once('/')?.0));
        let names: BTreeSet<&str> = folders.collect();
        names.into_iter().map(|name| Case { family: self, name }).collect()
    }

    /// The folder of that name; an empty one holds the arrays that stand in none.
    pub fn case<'f>(&'f self, name: &'f str) -> Case<'f> {
        Case { family: self, name }
    }

    /// Fails if anything was off, or an array was never looked at.
    pub fn finish(self) {
        let judged = self.judged.take();
        let mut wrong = self.wrong.take();
        let forgotten = self.arrays.keys().filter(|key| !judged.contains(*key));
        wrong.extend(forgotten.map(|key| format!("{key} was not judged")));
        assert!(wrong.is_empty(), "{}.npz:\n  {}", self.name, wrong.join("\n  "));
    }
}

impl<'f> Case<'f> {
    fn full(&self, key: &str) -> String {
        if self.name.is_empty() { key.into() } else { format!("{}/{key}", self.name) }
    }

    fn array(&self, key: &str) -> &'f Array {
        let full = self.full(key);
        let array = self.family.arrays.get(&full);
        self.family.judged.borrow_mut().insert(full.clone());
        array.unwrap_or_else(|| panic!("{}.npz has no array {full}", self.family.name))
    }

    /// Whether it has an array of that name.
    pub fn has(&self, key: &str) -> bool {
        self.family.arrays.contains_key(&self.full(key))
    }

    /// The name without what tells apart two shapes of one operation.
    pub fn operation(&self) -> &'f str {
        let shapes = ["_nchw", "_dense", "_large", "_wide", "_odd"];
        shapes.iter().find_map(|shape| self.name.strip_suffix(shape)).unwrap_or(self.name)
    }

    /// An input.
    pub fn tensor(&self, key: &str) -> Tensor {
        let Array { shape, numbers } = self.array(key);
        Tensor::new(shape, numbers.iter().map(|&x| x as f32).collect())
    }

    /// Class labels.
    pub fn labels(&self, key: &str) -> Vec<u32> {
        self.array(key).numbers.iter().map(|&x| x as u32).collect()
    }

    /// The settings, in the order of the manifest.
    pub fn settings<const N: usize>(&self) -> [f64; N] {
        let numbers = self.array("args").numbers.clone();
        numbers.try_into().unwrap_or_else(|_| panic!("{}: {N} settings expected", self.name))
    }

    /// The first of them.
    pub fn first_setting(&self) -> f64 {
        self.array("args").numbers[0]
    }

    /// The last of them.
    pub fn last_setting(&self) -> f64 {
        *self.array("args").numbers.last().expect("settings are never empty")
    }

    /// Compares numbers with an output.
    pub fn compare(&self, key: &str, found: &[f32]) {
        self.compare_within(key, found, TOLERANCE);
    }

    pub fn compare_within(&self, key: &str, found: &[f32], tolerance: f64) {
        let expected = &self.array(key).numbers;
        let error = if found.len() == expected.len() {
            let largest = expected.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
            let off = found.iter().zip(expected).map(|(&a, &b)| (f64::from(a) - b).abs());
            // A sum and not a fold with `max`, which would drop a NaN.
            let nan = if found.iter().any(|x| x.is_nan()) { f64::NAN } else { 0.0 };
            let off = off.fold(0.0, f64::max) + nan;
            if off == 0.0 { 0.0 } else { off / largest }
        } else {
            f64::INFINITY
        };
        let fits = error <= tolerance;
        if !fits {
            let line = format!("{}/{key}: relative error {error:.1e}", self.name);
            self.family.wrong.borrow_mut().push(line);
        }
    }

    /// Compares a tensor with an output, its shape too.
    pub fn compare_tensor(&self, key: &str, found: &Tensor) {
        let shape = &self.array(key).shape;
        if found.shape() != shape {
            let line = format!("{}/{key}: shape {:?}, not {shape:?}", self.name, found.shape());
            self.family.wrong.borrow_mut().push(line);
        }
        self.compare(key, found);
    }

    /// Judges value and gradients of an operation on these inputs.
    pub fn judge<const N: usize>(
        &self,
        inputs: [&str; N],
        f: impl for<'t> FnOnce([Var<'t>; N]) -> Var<'t>,
    ) {
        self.judge_at(0.0, inputs, f);
    }

    /// The same at a moment of training.
    pub fn judge_at<const N: usize>(
        &self,
        progress: f32,
        inputs: [&str; N],
        f: impl for<'t> FnOnce([Var<'t>; N]) -> Var<'t>,
    ) {
        let params = Params::new();
        let tape = Tape::train(&params).at(progress);
        let x = inputs.map(|key| tape.variable(self.tensor(key)));
        let y = f(x.clone());
        self.compare_tensor("y", y.value());
        let grads = (&y * &tape.constant(self.tensor("cov"))).sum().backward();
        for (key, x) in inputs.iter().zip(&x) {
            let gradient = grads.wrt(x).cloned().unwrap_or_else(|| Tensor::zeros(x.shape()));
            self.compare_tensor(&format!("d{key}"), &gradient);
        }
    }
}
