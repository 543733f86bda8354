//! Memory that is read soon, asked for while something else is computed: in portions so small that the
//! processor never waits for them, as it does once it has asked for some twenty lines at once.
//!
//! Only addresses are kept, since any may be asked for, and nothing is read.

use crate::pages::LINE;
use crate::simd::fetch_line;

/// Lines of a portion, at most: where portions are few, the rest is left out rather than waited for.
const MOST: usize = 32;

/// Rows of floats at equal distances.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    at: *const f32,
    rows: usize,
    row: usize,
    stride: usize,
}

impl Memory {
    /// No memory at all.
    pub const NONE: Memory = Memory { at: std::ptr::null(), rows: 0, row: 0, stride: 0 };

    /// All of `data`.
    #[inline(always)]
    pub fn whole(data: &[f32]) -> Self {
        Memory { at: data.as_ptr(), rows: 1, row: data.len(), stride: data.len() }
    }

    /// As much again after its last row, whatever is there.
    pub fn beyond(self) -> Self {
        Memory { at: self.at.wrapping_add(self.rows * self.stride), ..self }
    }

    /// The first `row` of every `stride` elements.
    pub fn rows(data: &[f32], row: usize, stride: usize) -> Self {
        Memory { at: data.as_ptr(), rows: data.len().div_ceil(stride), row, stride }
    }
}

/// A memory of which some has been asked for.
#[derive(Clone, Copy)]
struct Asked {
    /// From what comes next on.
    memory: Memory,
    /// What is left of its first row.
    left: usize,
    portion: usize,
}

impl Asked {
    #[inline(always)]
    fn new(memory: Memory, portions: usize) -> Self {
        let all = memory.rows * memory.row;
        let portion = all.div_ceil(portions.max(1)).next_multiple_of(LINE).min(MOST * LINE);
        let left = if memory.rows == 0 { 0 } else { memory.row };
        Asked { memory, left, portion }
    }
}

/// What is left to ask for.
pub(crate) struct Ahead([Asked; 2]);

impl Ahead {
    /// Each of two memories, in about as many `portions`.
    #[inline(always)]
    pub fn new(memories: [Memory; 2], portions: usize) -> Self {
        Ahead(memories.map(|memory| Asked::new(memory, portions)))
    }

    /// `memory` in place of the second.
    pub fn beside(&mut self, memory: Memory, portions: usize) {
        self.0[1] = Asked::new(memory, portions);
    }

    /// Asks for the next portion.
    #[inline(always)]
    pub fn fetch(&mut self) {
        if self.0.iter().all(|asked| asked.left == 0) {
            return;
        }
        for Asked { memory, left, portion } in &mut self.0 {
            let now = (*left).min(*portion);
            (0..now).step_by(LINE).for_each(|i| fetch_line(memory.at.wrapping_add(i)));
            memory.at = memory.at.wrapping_add(now);
            *left -= now;
            if *left == 0 && memory.rows > 1 {
                memory.rows -= 1;
                memory.at = memory.at.wrapping_add(memory.stride - memory.row);
                *left = memory.row;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_asked_for_to_its_end() {
        let data = vec![0.0; 950];
        // Of the rows the last begins before the end of the data.
        for (memory, rows, row) in [
            (Memory::NONE, 0, 0),
            (Memory::whole(&data), 1, 950),
            (Memory::rows(&data, 20, 100), 10, 20),
            (Memory::rows(&data, 16, 16), 60, 16),
        ] {
            for portions in [1, 3, 1000] {
                let mut ahead = Ahead::new([Memory::NONE, memory], portions);
                let mut asked = 0;
                while ahead.0[1].left > 0 {
                    let before = (ahead.0[1].memory.rows, ahead.0[1].left);
                    ahead.fetch();
                    let Asked { memory, left, .. } = ahead.0[1];
                    asked += (before.0 - memory.rows) * row + before.1 - left;
                    let place = (rows - memory.rows) * memory.stride + row - left;
                    assert_eq!(memory.at, data.as_ptr().wrapping_add(place), "{rows} of {row}");
                }
                assert_eq!(asked, rows * row, "{rows} of {row} in {portions}");
            }
        }
    }
}
