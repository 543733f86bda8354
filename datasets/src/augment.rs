//! Small random changes that leave a label true: moving an image by a few pixels, mirroring it.

use crate::rng::Rng;

/// How training images are varied. The default changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Augment {
    /// Pad with this many black pixels on each side and crop at random: a move by up to `shift` in each
    /// direction.
    pub shift: usize,
    /// Mirror left and right, every other time.
    pub flip: bool,
}

/// The change drawn for one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    down: isize,
    right: isize,
    flip: bool,
}

impl Augment {
    pub(crate) fn draw(&self, rng: &mut Rng) -> Change {
        let mut step = || rng.below(2 * self.shift + 1) as isize - self.shift as isize;
        let (down, right) = (step(), step());
        Change { down, right, flip: self.flip && rng.sign() < 0.0 }
    }
}

impl Change {
    pub(crate) const NONE: Change = Change { down: 0, right: 0, flip: false };

    /// Writes one changed plane of `height` rows to `out`, each pixel through `value`; what comes from outside
    /// the image is `value[0]`, black.
    pub(crate) fn apply(&self, plane: &[u8], height: usize, value: &[f32; 256], out: &mut [f32]) {
        let width = plane.len() / height;
        for (i, row) in out.chunks_exact_mut(width).enumerate() {
            let Some(from) = i.checked_add_signed(-self.down).filter(|&i| i < height) else {
                row.fill(value[0]);
                continue;
            };
            let from = &plane[from * width..][..width];
            for (j, y) in row.iter_mut().enumerate() {
                let pixel = j.checked_add_signed(-self.right).and_then(|j| from.get(j));
                *y = value[usize::from(pixel.copied().unwrap_or(0))];
            }
            if self.flip {
                row.reverse();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(change: Change) -> Vec<f32> {
        let value = std::array::from_fn(|i| i as f32);
        let mut out = vec![f32::NAN; 6];
        change.apply(&[1, 2, 3, 4, 5, 6], 2, &value, &mut out);
        out
    }

    #[test]
    fn an_image_moves_and_turns() {
        assert_eq!(apply(Change::NONE), [1., 2., 3., 4., 5., 6.]);
        let (down, right) = (1, -1);
        assert_eq!(apply(Change { down, right, flip: false }), [0., 0., 0., 2., 3., 0.]);
        assert_eq!(apply(Change { down, right, flip: true }), [0., 0., 0., 0., 3., 2.]);
        assert_eq!(apply(Change { down: 0, right: 9, flip: true }), [0.; 6]);
        assert_eq!(apply(Change { down: -5, right: 0, flip: false }), [0.; 6]);
    }

    #[test]
    fn every_change_is_drawn_and_no_other() {
        let how = Augment { shift: 1, flip: true };
        let mut seen = vec![];
        let mut rng = Rng::seed(0);
        for _ in 0..500 {
            let change = how.draw(&mut rng);
            assert!(change.down.abs() <= 1 && change.right.abs() <= 1);
            if !seen.contains(&change) {
                seen.push(change);
            }
        }
        assert_eq!(seen.len(), 18);
        assert_eq!(Augment::default().draw(&mut rng), Change::NONE);
    }
}
