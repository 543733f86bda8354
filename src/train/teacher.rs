//! A full-precision teacher beside the network that learns from it.

use crate::binarize::Distill;
use crate::models::{Card, Model};
use crate::nn::Module;
use crate::{Error, Params, Spec, Tape, Tensor, Var};
use std::path::Path;

/// A trained network that a student of the same architecture learns from. It changes no more: its
/// batch norms use their running statistics, and no gradient reaches it.
pub(super) struct Teacher {
    params: Params,
    model: Model,
    card: Card,
}

impl Teacher {
    /// Reads a `model.npz` that can teach this student.
    ///
    /// # Errors
    /// If it can't be read, or is not the student's architecture in full precision for the same
    /// images and classes: all that differs is named.
    pub fn load(path: &Path, student: &Card) -> Result<Self, Error> {
        let (params, model, card) = Card::load(path)?;
        let spec = |text: &str| text.parse::<Spec>();
        let mut wrong = Vec::new();
        let mut differ = |what: &str, found: String, expected: String| {
            wrong.push(format!("{what} is {found}, expected {expected}"));
        };
        if spec(&card.arch)? != spec(&student.arch)? {
            differ("arch", card.arch.clone(), student.arch.clone());
        }
        if spec(&card.method)?.name != "fp32" {
            differ("method", card.method.clone(), "fp32".into());
        }
        if card.input != student.input {
            let size = |[c, h, w]: [usize; 3]| format!("{c}x{h}x{w}");
            differ("input", size(card.input), size(student.input));
        }
        if card.classes != student.classes {
            differ("classes", card.classes.join(" "), student.classes.join(" "));
        }
        if (&card.mean, &card.std) != (&student.mean, &student.std) {
            let both = |card: &Card| format!("{:?} and {:?}", card.mean, card.std);
            differ("mean and std of the pixels", both(&card), both(student));
        }
        if !wrong.is_empty() {
            let why = format!("can't teach this run: {}", wrong.join("; "));
            return Err(Error::file(path, why));
        }
        Ok(Teacher { params, model, card })
    }

    /// Writes it to a file of its own.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        self.card.save(&self.params, path)
    }

    /// The loss of a student, whose logits for these images `student` computes on `tape`, which
    /// keeps representations; `labels` is the loss of its labels.
    pub fn loss<'t>(
        &self,
        distill: &Distill,
        tape: &'t Tape<'t>,
        images: &Tensor,
        student: &dyn Module,
        labels: impl FnOnce(&Var<'t>) -> Var<'t>,
    ) -> Var<'t> {
        // First, so that what it computes on the way is gone before the student keeps its own.
        let (blocks, logits) = {
            let own = Tape::eval(&self.params);
            let own = if distill.features > 0.0 { own.keeping_representations() } else { own };
            let logits = tape.constant(self.model.forward(&own.constant(images)).value());
            let blocks = own.representations();
            (blocks.iter().map(|b| tape.constant(b.value())).collect::<Vec<_>>(), logits)
        };
        let found = student.forward(&tape.constant(images));
        let own = tape.representations();
        distill.loss(|| labels(&found), [&own, &blocks], [&found, &logits])
    }
}
