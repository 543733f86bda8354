//! What happens inside binary layers in the course of training: the rows of `layers.csv`.

use crate::watch::{Binarized, SignNote};
use crate::{Error, Tensor};
use dirnet_kernels::bits::Mask;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// One binary layer in one epoch: a row of `layers.csv`. A side that stays float has no numbers.
///
/// Information and errors are those after the epoch, of the weights and of the activations of the
/// first test images, as [`Binarized`] defines them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// Epochs done, this one included.
    pub epoch: usize,
    /// As its parameters are named.
    pub layer: String,
    /// Share of the weights whose sign after the epoch is not the one they had before it.
    pub flip_ratio: Option<f64>,
    /// Share of the weights whose sign a step changed, mean over the steps: the `FlipRatio` of Larq,
    /// where a weight that flips twice counts twice.
    pub flip_ratio_step: Option<f64>,
    /// Entropy of a binary weight of the layer, in bits.
    pub weight_entropy: Option<f64>,
    /// Mean over the output channels of the entropy of a weight there: what IMB maximizes.
    pub weight_entropy_channel: Option<f64>,
    /// Quantization error of the weights.
    pub weight_error: Option<f64>,
    /// Entropy of a binary activation of the layer, in bits.
    pub activation_entropy: Option<f64>,
    /// Mean over the channels of the entropy of an activation there.
    pub activation_entropy_channel: Option<f64>,
    /// Quantization error of the activations.
    pub activation_error: Option<f64>,
}

impl Layer {
    /// The head of `layers.csv`.
    pub(super) const HEAD: &str = "epoch,layer,flip_ratio,flip_ratio_step,\
        weight_entropy,weight_entropy_channel,weight_error,\
        activation_entropy,activation_entropy_channel,activation_error";

    /// A row of it.
    pub(super) fn row(&self) -> String {
        let mut row = format!("{},{}", self.epoch, self.layer);
        for x in [
            self.flip_ratio,
            self.flip_ratio_step,
            self.weight_entropy,
            self.weight_entropy_channel,
            self.weight_error,
            self.activation_entropy,
            self.activation_entropy_channel,
            self.activation_error,
        ] {
            row += &x.map_or(",".to_string(), |x| format!(",{x:.6}"));
        }
        row
    }
}

/// The signs of a network's weights as an epoch goes on.
#[derive(Clone, Debug, Default)]
pub(super) struct Signs {
    layers: Vec<LayerSigns>,
}

#[derive(Clone, Debug)]
struct LayerSigns {
    layer: String,
    /// Before the epoch.
    before: Mask,
    /// Before the last step.
    last: Mask,
    flips: usize,
}

/// How much of [`Signs`] is no array: a checkpoint has it beside the arrays.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Flips {
    layer: String,
    weights: usize,
    flips: usize,
}

impl Signs {
    /// Counts what has flipped since the last step.
    pub fn step(&mut self, notes: &[SignNote]) {
        for note in notes {
            let Some(signs) = &note.signs else { continue };
            match self.layers.iter_mut().find(|l| l.layer == note.layer) {
                Some(known) => {
                    known.flips += known.last.differing(signs);
                    known.last = signs.clone();
                }
                None => self.layers.push(LayerSigns {
                    layer: note.layer.clone(),
                    before: signs.clone(),
                    last: signs.clone(),
                    flips: 0,
                }),
            }
        }
    }

    /// The rows of an epoch of so many steps that ends with these notes; the next one begins.
    pub fn end_epoch(&mut self, epoch: usize, steps: usize, notes: &[SignNote]) -> Vec<Layer> {
        self.step(notes);
        let rows = notes.iter().map(|note| {
            let signs = self.layers.iter().find(|l| l.layer == note.layer);
            let share = |n: usize, of: usize| n as f64 / of.max(1) as f64;
            let entropy =
                |b: Option<Binarized>| (b.map(|b| b.entropy), b.map(|b| b.entropy_channel));
            let (weight_entropy, weight_entropy_channel) = entropy(note.weights);
            let (activation_entropy, activation_entropy_channel) = entropy(note.activations);
            Layer {
                epoch,
                layer: note.layer.clone(),
                flip_ratio: signs.map(|s| share(s.before.differing(&s.last), s.last.len())),
                flip_ratio_step: signs.map(|s| share(s.flips, s.last.len() * steps)),
                weight_entropy,
                weight_entropy_channel,
                weight_error: note.weights.and_then(|b| b.error),
                activation_entropy,
                activation_entropy_channel,
                activation_error: note.activations.and_then(|b| b.error),
            }
        });
        let rows = rows.collect();
        for signs in &mut self.layers {
            signs.before = signs.last.clone();
            signs.flips = 0;
        }
        rows
    }

    /// What a resumed run needs of them: counts, and arrays by name.
    pub fn state(&self) -> (Vec<Flips>, Vec<(String, Tensor)>) {
        let counts = self.layers.iter().map(|l| Flips {
            layer: l.layer.clone(),
            weights: l.last.len(),
            flips: l.flips,
        });
        let arrays = self.layers.iter().flat_map(|l| {
            [("before", &l.before), ("last", &l.last)]
                .map(|(when, mask)| (format!("{when}/{}", l.layer), as_floats(mask)))
        });
        (counts.collect(), arrays.collect())
    }

    /// Takes over what [`Signs::state`] gave.
    ///
    /// # Errors
    /// If an array is missing or of a wrong size, named.
    pub fn restore(counts: &[Flips], mut arrays: HashMap<String, Tensor>) -> Result<Self, Error> {
        let wrong = |what: String| Error::Setting(format!("signs of weights: {what}"));
        let mut layers = Vec::new();
        for Flips { layer, weights, flips } in counts {
            let mut mask = |when: &str| {
                let name = format!("{when}/{layer}");
                let array =
                    arrays.remove(&name).ok_or_else(|| wrong(format!("{name} is missing")))?;
                of_floats(*weights, &array)
                    .ok_or_else(|| wrong(format!("{name} are not the signs of {weights} weights")))
            };
            let (before, last) = (mask("before")?, mask("last")?);
            layers.push(LayerSigns { layer: layer.clone(), before, last, flips: *flips });
        }
        match arrays.into_keys().min() {
            Some(name) => Err(wrong(format!("{name} belongs to no layer"))),
            None => Ok(Signs { layers }),
        }
    }
}

/// Sixteen bits a float, which holds each such number exactly.
fn as_floats(mask: &Mask) -> Tensor {
    let quarters = mask.words().iter().flat_map(|w| (0..4).map(move |i| (w >> (16 * i)) as u16));
    let floats: Vec<f32> = quarters.map(f32::from).collect();
    Tensor::new([floats.len()], floats)
}

fn of_floats(len: usize, x: &Tensor) -> Option<Mask> {
    let whole = |x: &f32| *x >= 0.0 && *x <= f32::from(u16::MAX) && x.fract() == 0.0;
    let word = |x: &[f32]| x.iter().rev().fold(0, |word, x| (word << 16) | *x as u64);
    let words = x.chunks(4).map(word).collect();
    x.iter().all(whole).then(|| Mask::from_words(len, words)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(x: &[f32]) -> Vec<SignNote> {
        let signs = Some(Mask::signs(x));
        vec![SignNote { layer: "a".into(), signs, weights: None, activations: None }]
    }

    #[test]
    fn flips_are_counted_by_step_and_by_epoch() {
        let mut signs = Signs::default();
        signs.step(&note(&[1.0, 1.0, 1.0, 1.0]));
        signs.step(&note(&[-1.0, 1.0, 1.0, -1.0]));
        signs.step(&note(&[1.0, 1.0, 1.0, -1.0]));
        // Three steps: two flips, one back, one more.
        let rows = signs.end_epoch(1, 3, &note(&[1.0, -1.0, 1.0, -1.0]));
        assert_eq!(rows[0].flip_ratio, Some(0.5));
        assert_eq!(rows[0].flip_ratio_step, Some(4.0 / 12.0));
        assert!(rows[0].row().starts_with("1,a,0.500000,0.333333,,"), "{}", rows[0].row());
        assert_eq!(rows[0].row().matches(',').count(), Layer::HEAD.matches(',').count());
        // The next epoch is told from where this one ended.
        signs.step(&note(&[1.0, -1.0, 1.0, -1.0]));
        let rows = signs.end_epoch(2, 1, &note(&[1.0, 1.0, 1.0, -1.0]));
        assert_eq!((rows[0].flip_ratio, rows[0].flip_ratio_step), (Some(0.25), Some(0.25)));
    }

    #[test]
    fn signs_come_back_from_a_checkpoint() {
        let x: Vec<f32> = (0..150).map(|i| if i * i % 7 < 3 { 1.0 } else { -1.0 }).collect();
        let mut signs = Signs::default();
        signs.step(&note(&x));
        let (counts, arrays) = signs.state();
        let arrays: HashMap<_, _> = arrays.into_iter().collect();
        let back = Signs::restore(&counts, arrays.clone()).unwrap();
        assert_eq!(back.layers[0].last, Mask::signs(&x));
        let mut broken = arrays.clone();
        broken.insert("last/a".into(), Tensor::zeros([3]));
        let message = Signs::restore(&counts, broken).unwrap_err().to_string();
        assert!(message.contains("last/a are not the signs of 150 weights"), "{message}");
        let message = Signs::restore(&[], arrays).unwrap_err().to_string();
        assert!(message.contains("before/a belongs to no layer"), "{message}");
    }
}
