//! Memory that is read soon, asked for while something else is computed: in portions so small that the
//! processor never waits for them, as it does once it has asked for some twenty lines at once.

use crate::simd::fetch;

/// Floats of a cache line.
const LINE: usize = 16;
/// Lines of a portion, at most: where portions are few, the rest is left out rather than waited for.
const MOST: usize = 32;

/// What is left to ask for.
pub(crate) struct Ahead<'a> {
    rest: [&'a [f32]; 2],
    portions: [usize; 2],
}

impl<'a> Ahead<'a> {
    /// Each of `data`, in about as many `portions`.
    pub fn new(data: [&'a [f32]; 2], portions: usize) -> Self {
        let portion = |data: &[f32]| {
            data.len().div_ceil(portions.max(1)).next_multiple_of(LINE).min(MOST * LINE)
        };
        Ahead { rest: data, portions: data.map(portion) }
    }

    /// Asks for all of `data` too, in about as many `portions`, while `work` uses what it is given.
    pub fn beside(&mut self, data: &[f32], portions: usize, work: impl FnOnce(&mut Ahead<'_>)) {
        let [own, _] = self.rest;
        let mut both = Ahead::new([own, data], portions);
        both.portions[0] = self.portions[0];
        work(&mut both);
        self.rest[0] = &own[own.len() - both.rest[0].len()..];
    }

    /// Asks for the next portion.
    #[inline(always)]
    pub fn fetch(&mut self) {
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
