//! Memory that is read soon, asked for while something else is computed: in portions so small that the
//! processor never waits for them, as it does once it has asked for some twenty lines at once.

use crate::simd::fetch;

/// Floats of a cache line.
const LINE: usize = 16;
/// Lines of a portion, at most: the processor can wait for no more at once.
const MOST: usize = 32;

/// What is left to ask for.
pub(super) struct Ahead<'a> {
    rest: [&'a [f32]; 2],
    portions: [usize; 2],
}

impl<'a> Ahead<'a> {
    /// What follows the first `now` elements of each of `data`, as many again, in about as many
    /// `portions`.
    pub(super) fn new(data: [&'a [f32]; 2], now: [usize; 2], portions: usize) -> Self {
        let rest: [_; 2] = std::array::from_fn(|i| {
            let rest = &data[i][now[i].min(data[i].len())..];
            &rest[..now[i].min(rest.len())]
        });
        let portion = |rest: &[f32]| rest.len().div_ceil(portions).next_multiple_of(LINE);
        Ahead { rest, portions: rest.map(|rest| portion(rest).min(MOST * LINE)) }
    }

    /// Asks for all of `data` too, in about as many `portions`, while `work` uses what it is given.
    pub(super) fn beside(
        &mut self,
        data: &[f32],
        portions: usize,
        work: impl FnOnce(&mut Ahead<'_>),
    ) {
        let portion = data.len().div_ceil(portions.max(1)).next_multiple_of(LINE).min(MOST * LINE);
        let [own, _] = self.rest;
        let mut both = Ahead { rest: [own, data], portions: [self.portions[0], portion] };
        work(&mut both);
        self.rest[0] = &own[own.len() - both.rest[0].len()..];
    }

    /// Asks for the next portion.
    #[inline(always)]
    pub(super) fn fetch(&mut self) {
        if self.rest.iter().all(|rest| rest.is_empty()) {
            return;
        }
        for (rest, portion) in self.rest.iter_mut().zip(self.portions) {
            let (now, later) = rest.split_at(portion.min(rest.len()));
            fetch(now);
            *rest = later;
        }
    }
}
