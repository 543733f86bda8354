//! How good a model is.

use crate::nn::Module;
use crate::watch::Watch;
use crate::{Params, Tape, Tensor, Var};
use dirnet_datasets::Batches;

/// Loss and accuracy over a set of images.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// Images seen.
    pub samples: usize,
    /// Mean cross-entropy.
    pub loss: f64,
    /// Share whose largest logit is the label's; of several equal ones the first counts.
    pub accuracy: f64,
    /// How often each class (row) was taken for each (column).
    pub confusion: Vec<Vec<usize>>,
}

/// The score of a model on every image of some batches.
pub fn evaluate(model: &dyn Module, params: &Params, batches: Batches) -> Score {
    evaluate_first(model, params, batches, Tape::eval(params)).0
}

/// The score of whatever makes logits of a batch of images.
pub fn score(batches: Batches, mut logits: impl FnMut(&Tensor) -> Tensor) -> Score {
    let (params, mut tally) = (Params::new(), Tally::default());
    for batch in batches {
        let tape = Tape::eval(&params);
        let images = tape.constant(&batch).value().clone();
        tally.add(&tape.constant(logits(&images)), &batch.labels);
    }
    tally.score()
}

/// A score in the making.
#[derive(Default)]
struct Tally {
    samples: usize,
    loss: f64,
    confusion: Vec<Vec<usize>>,
}

impl Tally {
    fn add(&mut self, logits: &Var<'_>, labels: &[u32]) {
        self.loss += f64::from(logits.cross_entropy(labels).value().item()) * labels.len() as f64;
        let k = logits.shape()[1];
        self.confusion.resize_with(k, || vec![0; k]);
        for (found, &label) in classes(logits.value()).into_iter().zip(labels) {
            self.confusion[label as usize][found as usize] += 1;
        }
        self.samples += labels.len();
    }

    fn score(self) -> Score {
        let Tally { samples, loss, confusion } = self;
        let all = (samples as f64).max(1.0);
        let right: usize = confusion.iter().enumerate().map(|(class, row)| row[class]).sum();
        Score { samples, loss: loss / all, accuracy: right as f64 / all, confusion }
    }
}

/// The same with an evaluating tape of one's own for the first batch, and what it noted.
pub(super) fn evaluate_first(
    model: &dyn Module,
    params: &Params,
    batches: Batches,
    first: Tape<'_>,
) -> (Score, Watch) {
    let mut tally = Tally::default();
    let (mut first, mut noted) = (Some(first), Watch::Nothing);
    for batch in batches {
        let is_first = first.is_some();
        let tape = first.take().unwrap_or_else(|| Tape::eval(params));
        tally.add(&model.forward(&tape.constant(&batch)), &batch.labels);
        if is_first {
            noted = tape.into_watched();
        }
    }
    (tally.score(), noted)
}

/// The class with the largest logit in each row; the first of several equal ones.
pub(crate) fn classes(logits: &Tensor) -> Vec<u32> {
    let largest = |row: &[f32]| {
        let first = |best: usize, i: usize| if row[i] > row[best] { i } else { best };
        (0..row.len()).fold(0, first) as u32
    };
    logits.chunks(logits.shape()[1]).map(largest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_logits_the_first_counts() {
        let logits = Tensor::new([2, 3], vec![0.0, 2.0, 2.0, 1.0, 0.0, -1.0]);
        assert_eq!(classes(&logits), [1, 0]);
    }
}
