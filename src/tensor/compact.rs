//! Numbers in a form that takes less memory than floats, and becomes floats when somebody reads them.
//!
//! The sums of a binary convolution are small integers, and what is made of them by a pass over
//! memory can be made again. An operation that knows of the smaller form works with it; to all others
//! the tensor reads as any other.

use super::buffer::Buffer;
use crate::Tensor;
use dirnet_kernels::norm_act::Numbers;

/// A smaller form of a tensor's numbers.
pub(crate) trait Compact: Send + Sync {
    /// Writes the floats from element `first` on.
    fn write(&self, first: usize, y: &mut [f32]);

    /// The floats at these places.
    fn gather(&self, places: &mut dyn Iterator<Item = usize>) -> Vec<f32>;

    /// Integers with a scale a channel, where that is what they are.
    fn integers(&self) -> Option<Numbers<'_>> {
        None
    }
}

/// `scale[c]·z`, of shape `N C ...`.
pub(super) struct Integers {
    /// Two integers in the place of a float.
    z: Buffer,
    len: usize,
    scale: Tensor,
    /// Numbers of a channel.
    area: usize,
    /// `[Σ z, Σ z²]` a channel, if whoever wrote the integers has added them up.
    sums: Option<Vec<[i64; 2]>>,
}

impl Integers {
    pub(super) fn build(
        shape: &[usize],
        scale: Tensor,
        fill: impl FnOnce(&mut [i16]) -> Option<Vec<[i64; 2]>>,
    ) -> Self {
        let len = shape.iter().product();
        let mut z = Buffer::take(usize::div_ceil(len, 2));
        let sums = fill(&mut bytemuck::cast_slice_mut(z.data_mut())[..len]);
        Integers { z, len, scale, area: shape[2..].iter().product(), sums }
    }

    fn z(&self) -> &[i16] {
        &bytemuck::cast_slice(self.z.data())[..self.len]
    }

    fn scale(&self, i: usize) -> f32 {
        self.scale[i / self.area % self.scale.len()]
    }
}

impl Compact for Integers {
    fn write(&self, first: usize, y: &mut [f32]) {
        let mut done = 0;
        while done < y.len() {
            let at = first + done;
            let len = (self.area - at % self.area).min(y.len() - done);
            let (scale, z) = (self.scale(at), &self.z()[at..at + len]);
            let y = &mut y[done..done + len];
            y.iter_mut().zip(z).for_each(|(y, &z)| *y = f32::from(z) * scale);
            done += len;
        }
    }
    fn gather(&self, places: &mut dyn Iterator<Item = usize>) -> Vec<f32> {
        let z = self.z();
        places.map(|i| f32::from(z[i]) * self.scale(i)).collect()
    }
    fn integers(&self) -> Option<Numbers<'_>> {
        Some(Numbers::Integers { z: self.z(), scale: &self.scale, sums: self.sums.as_deref() })
    }
}
