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

    /// What it says to some images.
    pub fn answer(&self, distill: &Distill, images: &Tensor) -> Answer {
        Answer::of(&self.model, &teachers_tape(distill, &self.params), images)
    }
}

/// What a teacher says to some images, as far as it is asked.
pub(crate) struct Answer {
    blocks: Vec<Tensor>,
    logits: Tensor,
}

impl Answer {
    /// Of a teacher, on a tape of [`teachers_tape`].
    pub fn of(teacher: &dyn Module, tape: &Tape<'_>, images: &Tensor) -> Self {
        let logits = teacher.forward(&tape.constant(images)).value().clone();
        let blocks = tape.representations().iter().map(|b| b.value().clone()).collect();
        Answer { blocks, logits }
    }

    /// The loss of a student, whose logits for the same images are computed on `tape`, which keeps
    /// representations if they count; `labels` is the loss of its labels.
    pub fn loss<'t>(
        self,
        distill: &Distill,
        tape: &'t Tape<'t>,
        images: &Tensor,
        student: &dyn Module,
        labels: impl FnOnce(&Var<'t>) -> Var<'t>,
    ) -> Var<'t> {
        let found = student.forward(&tape.constant(images));
        let blocks: Vec<_> = self.blocks.into_iter().map(|b| tape.constant(b)).collect();
        let (own, logits) = (tape.representations(), tape.constant(self.logits));
        distill.loss(|| labels(&found), [&own, &blocks], [&found, &logits])
    }
}

/// The tape that a teacher answers on: it keeps what is compared, and need not round as the teacher's
/// own evaluation does.
pub(crate) fn teachers_tape<'p>(distill: &Distill, params: &'p Params) -> Tape<'p> {
    keeping(distill, Tape::eval(params).quick())
}

/// A tape that keeps representations if they are compared.
pub(crate) fn keeping<'p>(distill: &Distill, tape: Tape<'p>) -> Tape<'p> {
    if distill.features > 0.0 { tape.keeping_representations() } else { tape }
}
