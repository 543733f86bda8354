//! Optimisers: the only place where a model changes.
//!
//! [`Sgd`], [`Adam`] and [`Bop`] are one [`Optimizer`] with different rules; schedule, decay and clipping
//! are the same for all.

mod adam;
mod bop;
mod schedule;
mod sgd;

pub use adam::{Adam, AdamRule};
pub use bop::{Bop, BopRule};
pub use schedule::{Curve, Schedule};
pub use sgd::{Sgd, SgdRule};

use crate::{Error, Grads, ParamId, Params, Role, Tensor};
use std::collections::HashMap;

/// How one parameter moves, given its gradient.
pub trait Rule {
    /// Names of the tensors it keeps for each parameter of a role.
    fn states(&self, role: Role) -> &'static [&'static str];

    /// What it asks of a parameter before the first step; nothing by default.
    fn start(&self, role: Role, w: &mut [f32]) {
        let _ = (role, w);
    }

    /// Moves `w`. `state` has a tensor of the shape of `w` for each name, zeros at first.
    fn update(&self, at: Moment, w: &mut [f32], dw: &[f32], state: &mut [Tensor]);
}

/// The numbers of one step that a [`Rule`] goes by.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The learning rate, schedule included.
    pub lr: f32,
    /// Weight decay.
    pub decay: f32,
    /// Steps taken, this one included.
    pub step: u64,
    /// The moment of training, from 0 to 1.
    pub progress: f32,
    /// What the parameter is to training.
    pub role: Role,
}

/// A rule, and what is common to all.
///
/// ```
/// use dirnet::{Params, Role, Tape, Tensor, optim::Sgd};
/// let mut params = Params::new();
/// let w = params.add("w", Role::Weight, Tensor::from([4.0]));
/// let mut opt = Sgd::new(0.1).momentum(0.5);
/// for _ in 0..50 {
///     let tape = Tape::train(&params);
///     let grads = tape.param(w).square().sum().backward();
///     opt.step(&mut params, &grads);
/// }
/// assert!(params[w].value[0].abs() < 1e-3);
/// ```
#[derive(Debug)]
pub struct Optimizer<R> {
    rule: R,
    lr: f32,
    decay: f32,
    schedule: Schedule,
    clip_norm: Option<f64>,
    latent_clip: Option<f32>,
    steps: u64,
    state: HashMap<ParamId, Vec<Tensor>>,
}

/// Any optimiser, whatever its rule.
pub trait Optimize {
    /// Makes of the parameters what the rule asks for: signs, if it flips bits. It belongs before the
    /// first step, and may be called again.
    fn begin(&self, params: &mut Params);

    /// Moves all parameters that have a gradient, then writes what the forward pass left for
    /// buffers.
    fn step(&mut self, params: &mut Params, grads: &Grads);

    /// The learning rate at a moment of training, from 0 to 1.
    fn lr_at(&self, progress: f32) -> f32;

    /// All that a resumed run needs, as named tensors.
    fn state(&self, params: &Params) -> Vec<(String, Tensor)>;

    /// Takes over what [`Optimize::state`] gave.
    ///
    /// # Errors
    /// If something is missing or of a wrong shape, named.
    fn restore(&mut self, params: &Params, state: HashMap<String, Tensor>) -> Result<(), Error>;
}

impl<R: Rule> Optimizer<R> {
    fn with_rule(rule: R, lr: f32) -> Self {
        Optimizer {
            rule,
            lr,
            decay: 0.0,
            schedule: Schedule::default(),
            clip_norm: None,
            latent_clip: None,
            steps: 0,
            state: HashMap::new(),
        }
    }
    /// Weight decay.
    pub fn decay(self, decay: f32) -> Self {
        Optimizer { decay, ..self }
    }
    /// How the learning rate changes in the course of training.
    pub fn schedule(self, schedule: Schedule) -> Self {
        Optimizer { schedule, ..self }
    }
    /// The learning rate falls to zero along half a cosine.
    pub fn cosine(self) -> Self {
        self.schedule(Schedule::cosine())
    }
    /// Scales all gradients down so that their common length is at most `limit`.
    pub fn clip_norm(self, limit: f64) -> Self {
        Optimizer { clip_norm: Some(limit), ..self }
    }
    /// Clips latent weights to `±limit` after each step, so that none wanders off to where its
    /// estimator has no slope left (Courbariaux et al., 2015, arXiv 1511.00363).
    pub fn latent_clip(self, limit: f32) -> Self {
        Optimizer { latent_clip: Some(limit), ..self }
    }
    /// See [`Optimize::begin`].
    pub fn begin(&self, params: &mut Params) {
        let ids: Vec<ParamId> = params.iter().map(|(id, _)| id).collect();
        for id in ids {
            let role = params[id].role;
            self.rule.start(role, params.value_mut(id).data_mut());
        }
    }
    /// See [`Optimize::step`].
    pub fn step(&mut self, params: &mut Params, grads: &Grads) {
        self.steps += 1;
        let progress = grads.progress();
        let (lr, decay, step) = (self.lr_at(progress), self.decay, self.steps);
        let clipped = self.clip_norm.map(|limit| {
            let mut grads = grads.clone();
            grads.clip_norm(limit);
            grads
        });
        for (id, dw) in clipped.as_ref().unwrap_or(grads).iter() {
            let role = params[id].role;
            let w = params.value_mut(id);
            let zeros = || vec![Tensor::zeros(w.shape()); self.rule.states(role).len()];
            let state = self.state.entry(id).or_insert_with(zeros);
            let w = w.data_mut();
            let at = Moment { lr, decay, step, progress, role };
            self.rule.update(at, w, dw, state);
            if let (Role::Latent, Some(limit)) = (role, self.latent_clip) {
                w.iter_mut().for_each(|w| *w = w.clamp(-limit, limit));
            }
        }
        for (id, value) in grads.updates() {
            params.set(*id, value.clone());
        }
    }
    /// See [`Optimize::lr_at`].
    pub fn lr_at(&self, progress: f32) -> f32 {
        self.lr * self.schedule.factor(progress)
    }
}

impl<R: Rule> Optimize for Optimizer<R> {
    fn begin(&self, params: &mut Params) {
        Optimizer::begin(self, params);
    }
    fn step(&mut self, params: &mut Params, grads: &Grads) {
        Optimizer::step(self, params, grads);
    }
    fn lr_at(&self, progress: f32) -> f32 {
        Optimizer::lr_at(self, progress)
    }

    fn state(&self, params: &Params) -> Vec<(String, Tensor)> {
        // A count of steps in two f32, each exact.
        let (high, low) = ((self.steps >> 20) as f32, (self.steps & 0xf_ffff) as f32);
        let mut state = vec![("steps".to_string(), Tensor::from([high, low]))];
        for (id, param) in params.iter() {
            let names = self.rule.states(param.role).iter();
            for (name, tensor) in names.zip(self.state.get(&id).into_iter().flatten()) {
                state.push((format!("{name}/{}", param.name), tensor.clone()));
            }
        }
        state
    }

    fn restore(
        &mut self,
        params: &Params,
        mut state: HashMap<String, Tensor>,
    ) -> Result<(), Error> {
        let wrong = |what: String| Error::Setting(format!("state of the optimiser: {what}"));
        let steps = state.remove("steps").filter(|s| s.len() == 2);
        let steps = steps.ok_or_else(|| wrong("the count of steps is missing".into()))?;
        let mut restored = HashMap::new();
        for (id, param) in params.iter() {
            let mut tensors = Vec::new();
            let names = self.rule.states(param.role);
            for name in names {
                match state.remove(&format!("{name}/{}", param.name)) {
                    Some(t) if t.shape() == param.value.shape() => tensors.push(t),
                    Some(t) => {
                        return Err(wrong(format!(
                            "{name} of {} has shape {:?}",
                            param.name,
                            t.shape()
                        )));
                    }
                    None => break,
                }
            }
            if tensors.len() == names.len() {
                restored.insert(id, tensors);
            }
        }
        if let Some(name) = state.into_keys().min() {
            return Err(wrong(format!("{name} belongs to no parameter of this model")));
        }
        self.steps = ((steps[0] as u64) << 20) + steps[1] as u64;
        self.state = restored;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tape;

    fn one_parameter() -> (Params, ParamId) {
        let mut params = Params::new();
        let w = params.add("w", Role::Latent, Tensor::from([0.9, -0.4]));
        (params, w)
    }

    fn grads(params: &Params, w: ParamId) -> Grads {
        let tape = Tape::train(params);
        (tape.param(w).square() * -3.0).sum().backward()
    }

    #[test]
    fn latent_weights_stay_within_the_clip() {
        let (mut params, w) = one_parameter();
        let mut opt = Sgd::new(1.0).latent_clip(1.0);
        let g = grads(&params, w);
        opt.step(&mut params, &g);
        assert_eq!(&*params[w].value, [1.0, -1.0]);
    }

    #[test]
    fn gradients_are_clipped_to_a_common_length() {
        let (params, w) = one_parameter();
        let mut g = grads(&params, w);
        let before = g.get(w).unwrap().clone();
        g.clip_norm(1.0);
        assert!((g.norm() - 1.0).abs() < 1e-6);
        let after = g.get(w).unwrap();
        assert!((after[0] / after[1] - before[0] / before[1]).abs() < 1e-6);
    }

    #[test]
    fn a_restored_optimiser_goes_on_as_if_nothing_had_happened() {
        let run = |interrupted: bool| {
            let (mut params, w) = one_parameter();
            let mut opt = Adam::new(0.01).decay(0.1).cosine();
            for step in 0..6 {
                if interrupted && step == 3 {
                    let state = opt.state(&params).into_iter().collect();
                    opt = Adam::new(0.01).decay(0.1).cosine();
                    opt.restore(&params, state).unwrap();
                }
                let g = grads(&params, w);
                opt.step(&mut params, &g);
            }
            params[w].value.clone()
        };
        assert_eq!(run(true), run(false));
    }

    #[test]
    fn a_foreign_state_is_refused_by_name() {
        let (mut params, w) = one_parameter();
        let mut opt = Sgd::new(0.1).momentum(0.9);
        let g = grads(&params, w);
        opt.step(&mut params, &g);
        let mut state: HashMap<_, _> = opt.state(&params).into_iter().collect();
        state.insert("velocity/stem".into(), Tensor::zeros([1]));
        let message = opt.restore(&params, state).unwrap_err().to_string();
        assert!(message.contains("velocity/stem belongs to no parameter"), "{message}");
    }
}
