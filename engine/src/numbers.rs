//! The fixed numbers of a network, each array in the smallest form that says exactly what it is.

use crate::limits;
use crate::shape;
use half::f16;
use serde::{Deserialize, Serialize};

/// Where a binary convolution's sum counts as +1: `z ≥ at`, or `z < at` where `flip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// The smallest sum of one side.
    pub at: i16,
    /// Whether that side is -1.
    pub flip: bool,
}

impl Threshold {
    /// Every sum is +1.
    pub const ALWAYS: Threshold = Threshold { at: i16::MIN, flip: false };
    /// No sum is.
    pub const NEVER: Threshold = Threshold { at: i16::MIN, flip: true };

    /// Whether a sum counts as +1.
    pub fn of(self, z: i16) -> bool {
        (z >= self.at) != self.flip
    }
}

/// How the numbers of an array lie in a file, row after row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// A 32-bit float a row, then 8-bit integers that it multiplies.
    I8,
    /// A bit a number, set where it is not below zero, where only the signs are of use.
    Signs,
    /// Two 32-bit floats a row, then a bit a number that chooses between them.
    Levels,
    /// A [`Threshold`] each: 16-bit integers, then a bit each that is set where it flips.
    Thresholds,
}

impl std::fmt::Display for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Form::F32 => "f32",
            Form::F16 => "f16",
            Form::I8 => "i8",
            Form::Signs => "signs",
            Form::Levels => "levels",
            Form::Thresholds => "thresholds",
        })
    }
}

/// An array of fixed numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Numbers {
    /// `LAYER.WHAT`
    pub name: String,
    /// Its shape; rows lie along the first axis.
    pub shape: Vec<usize>,
    /// The numbers.
    pub values: Values,
}

/// The numbers of an array, in one of the [`Form`]s.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// [`Form::F32`]
    F32(Vec<f32>),
    /// [`Form::F16`]
    F16(Vec<f16>),
    /// [`Form::I8`]
    I8(Vec<f32>, Vec<i8>),
    /// [`Form::Signs`]
    Signs(Bits),
    /// [`Form::Levels`]: what a clear and a set bit stand for in each row.
    Levels(Vec<[f32; 2]>, Bits),
    /// [`Form::Thresholds`]
    Thresholds(Vec<Threshold>),
}

impl Default for Values {
    fn default() -> Self {
        Values::F32(Vec::new())
    }
}

/// Bits, the first in the lowest place of the first byte.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Bits {
    bytes: Vec<u8>,
    len: usize,
}

impl Bits {
    /// These.
    pub fn new(bits: impl IntoIterator<Item = bool>) -> Self {
        let mut all = Bits::default();
        for bit in bits {
            if all.len.is_multiple_of(8) {
                all.bytes.push(0);
            }
            let at = all.len % 8;
            if let Some(byte) = all.bytes.last_mut() {
                *byte |= u8::from(bit) << at;
            }
            all.len += 1;
        }
        all
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// The `i`-th.
    ///
    /// # Panics
    /// If there are not as many.
    #[inline]
    pub fn get(&self, i: usize) -> bool {
        self.bytes[i / 8] >> (i % 8) & 1 == 1
    }
    /// One after the other.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = bool> + '_ {
        (0..self.len).map(|i| self.get(i))
    }
    /// Eight to a byte; those behind the last are clear.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Numbers {
    /// Floats as they are.
    pub fn floats(name: impl Into<String>, shape: &[usize], x: Vec<f32>) -> Self {
        assert_eq!(x.len(), shape.iter().product::<usize>(), "as many numbers as {shape:?} has");
        Numbers { name: name.into(), shape: shape.to_vec(), values: Values::F32(x) }
    }

    /// The form they are in.
    pub fn form(&self) -> Form {
        match self.values {
            Values::F32(_) => Form::F32,
            Values::F16(_) => Form::F16,
            Values::I8(..) => Form::I8,
            Values::Signs(_) => Form::Signs,
            Values::Levels(..) => Form::Levels,
            Values::Thresholds(_) => Form::Thresholds,
        }
    }

    /// Its bytes in a file.
    pub fn bytes(&self) -> usize {
        size(self.form(), &self.shape)
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is none, which no checked array is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Looks whether there are as many numbers as the shape says, all of them finite.
    ///
    /// # Errors
    /// If not, or if the name or the shape is none.
    pub fn check(&self) -> Result<(), String> {
        limits::name("an array", &self.name)?;
        let fail = |what: String| Err(format!("array {}: {what}", self.name));
        let len = match shape::len(&self.shape) {
            Ok(len) => len,
            Err(e) => return fail(e),
        };
        let rows = |found: usize| if found == self.rows() { len } else { usize::MAX };
        let found = match &self.values {
            Values::F32(x) => x.len(),
            Values::F16(x) => x.len(),
            Values::I8(scales, x) => x.len().max(rows(scales.len())),
            Values::Signs(bits) => bits.len(),
            Values::Levels(levels, bits) => bits.len().max(rows(levels.len())),
            Values::Thresholds(all) => all.len(),
        };
        if found != len {
            return fail(format!("has not as many numbers as its shape {:?}", self.shape));
        }
        let row = len / self.rows();
        let finite = match &self.values {
            Values::F32(x) => x.iter().all(|x| x.is_finite()),
            Values::F16(x) => x.iter().all(|x| x.is_finite()),
            Values::I8(scales, x) => {
                let mut rows = scales.iter().zip(x.chunks(row));
                rows.all(|(scale, x)| x.iter().all(|&x| (scale * f32::from(x)).is_finite()))
            }
            Values::Levels(levels, _) => levels.as_flattened().iter().all(|x| x.is_finite()),
            Values::Signs(_) | Values::Thresholds(_) => true,
        };
        if finite { Ok(()) } else { fail("has a number that is not finite".into()) }
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// As floats: of signs ±1, of thresholds none.
    pub fn to_floats(&self) -> Vec<f32> {
        let len: usize = self.shape.iter().product();
        let row = (len / self.rows().max(1)).max(1);
        match &self.values {
            Values::F32(x) => x.clone(),
            Values::F16(x) => x.iter().map(|x| x.to_f32()).collect(),
            Values::I8(scales, x) => {
                x.iter().enumerate().map(|(i, &x)| scales[i / row] * f32::from(x)).collect()
            }
            Values::Signs(bits) => bits.iter().map(|bit| if bit { 1.0 } else { -1.0 }).collect(),
            Values::Levels(levels, bits) => {
                let levels = bits.iter().enumerate().map(|(i, b)| levels[i / row][usize::from(b)]);
                levels.collect()
            }
            Values::Thresholds(_) => Vec::new(),
        }
    }

    /// The same with only the signs kept.
    pub fn signs(self) -> Self {
        let bits = Bits::new(self.to_floats().into_iter().map(|x| x >= 0.0 || x.is_nan()));
        Numbers { values: Values::Signs(bits), ..self }
    }

    /// The same in bits, if each row has no more than two numbers, to the bit, in it, and bits take less
    /// room; else as it is.
    pub fn levels(self) -> Self {
        let x = self.to_floats();
        let row = (x.len() / self.rows().max(1)).max(1);
        let mut levels = Vec::new();
        for x in x.chunks(row) {
            let low = x[0];
            let high = x.iter().copied().find(|x| x.to_bits() != low.to_bits()).unwrap_or(low);
            let known = |x: &f32| [low, high].iter().any(|y| y.to_bits() == x.to_bits());
            if !x.iter().all(known) {
                return self;
            }
            levels.push(if low <= high { [low, high] } else { [high, low] });
        }
        if self.form() != Form::F32
            || size(Form::Levels, &self.shape) >= size(Form::F32, &self.shape)
        {
            return self;
        }
        let set = x.iter().enumerate().map(|(i, x)| x.to_bits() == levels[i / row][1].to_bits());
        let bits = Bits::new(set);
        Numbers { values: Values::Levels(levels, bits), ..self }
    }

    /// The nearest 16-bit floats; numbers beyond their range become the largest.
    pub fn halved(self) -> Self {
        let near = |x: f32| f16::from_f32(x.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()));
        let x = self.to_floats().into_iter().map(near).collect();
        Numbers { values: Values::F16(x), ..self }
    }

    /// The nearest of 255 numbers, evenly spaced around zero for each row.
    pub fn eighths(self) -> Self {
        let x = self.to_floats();
        let row = (x.len() / self.rows().max(1)).max(1);
        let largest = |x: &[f32]| x.iter().fold(0f32, |m, x| m.max(x.abs()));
        let scales: Vec<f32> = x.chunks(row).map(|x| largest(x) / 127.0).collect();
        let near = |(i, &x): (usize, &f32)| match scales[i / row] {
            0.0 => 0,
            scale => (x / scale).round().clamp(-127.0, 127.0) as i8,
        };
        let x = x.iter().enumerate().map(near).collect();
        Numbers { values: Values::I8(scales, x), ..self }
    }

    /// Their bytes in a file.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let floats = |out: &mut Vec<u8>, x: &[f32]| {
            out.extend(x.iter().flat_map(|x| x.to_le_bytes()));
        };
        match &self.values {
            Values::F32(x) => floats(out, x),
            Values::F16(x) => out.extend(x.iter().flat_map(|x| x.to_le_bytes())),
            Values::I8(scales, x) => {
                floats(out, scales);
                out.extend(x.iter().map(|x| x.to_le_bytes()[0]));
            }
            Values::Signs(bits) => out.extend(bits.bytes()),
            Values::Levels(levels, bits) => {
                floats(out, levels.as_flattened());
                out.extend(bits.bytes());
            }
            Values::Thresholds(all) => {
                out.extend(all.iter().flat_map(|t| t.at.to_le_bytes()));
                out.extend(Bits::new(all.iter().map(|t| t.flip)).bytes());
            }
        }
    }

    /// Reads them from the front of `bytes`, and leaves what follows.
    ///
    /// # Errors
    /// If there are too few bytes, or bits set that stand for nothing. What they say is for
    /// [`Numbers::check`] to judge.
    pub(crate) fn decode(
        name: &str,
        shape: &[usize],
        form: Form,
        bytes: &mut &[u8],
    ) -> Result<Self, String> {
        limits::name("an array", name)?;
        let fail = |what: String| format!("array {name}: {what}");
        let len = shape::len(shape).map_err(fail)?;
        let rows = shape.first().copied().unwrap_or(1);
        let wanted = size(form, shape);
        let Some(mut own) = bytes.split_off(..wanted) else {
            return Err(fail(format!("needs {wanted} bytes, and {} are left", bytes.len())));
        };
        let mut take = |n: usize| own.split_off(..n).unwrap_or_default();
        let floats = |bytes: &[u8]| -> Vec<f32> {
            bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
        };
        let bits = |bytes: &[u8], len: usize| {
            let spare =
                bytes.last().is_some_and(|last| !len.is_multiple_of(8) && last >> (len % 8) != 0);
            match spare {
                true => Err(fail("has bits set behind its last number".into())),
                false => Ok(Bits { bytes: bytes.to_vec(), len }),
            }
        };
        let values = match form {
            Form::F32 => Values::F32(floats(take(4 * len))),
            Form::F16 => {
                let halves = take(2 * len).as_chunks().0.iter().map(|&b| f16::from_le_bytes(b));
                Values::F16(halves.collect())
            }
            Form::I8 => {
                let scales = floats(take(4 * rows));
                Values::I8(scales, take(len).iter().map(|&b| i8::from_le_bytes([b])).collect())
            }
            Form::Signs => Values::Signs(bits(take(len.div_ceil(8)), len)?),
            Form::Levels => {
                let levels = floats(take(8 * rows)).as_chunks().0.to_vec();
                Values::Levels(levels, bits(take(len.div_ceil(8)), len)?)
            }
            Form::Thresholds => {
                let at = take(2 * len).as_chunks().0.iter().map(|&b| i16::from_le_bytes(b));
                let at: Vec<i16> = at.collect();
                let flips = bits(take(len.div_ceil(8)), len)?;
                let both = at.into_iter().zip(flips.iter());
                Values::Thresholds(both.map(|(at, flip)| Threshold { at, flip }).collect())
            }
        };
        Ok(Numbers { name: name.into(), shape: shape.to_vec(), values })
    }
}

/// Bytes of an array in a file; of a shape that was looked at.
pub(crate) fn size(form: Form, shape: &[usize]) -> usize {
    let len: usize = shape.iter().product();
    let rows = shape.first().copied().unwrap_or(1);
    match form {
        Form::F32 => 4 * len,
        Form::F16 => 2 * len,
        Form::I8 => 4 * rows + len,
        Form::Signs => len.div_ceil(8),
        Form::Levels => 8 * rows + len.div_ceil(8),
        Form::Thresholds => 2 * len + len.div_ceil(8),
    }
}
