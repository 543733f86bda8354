//! Sizes and ranges of convolutions and pools: the only shape arithmetic there is.
//!
//! Everything is row major; images are `N C H W`, filters `O C/groups KH KW`.

use std::fmt;
use std::ops::Range;

/// How a filter moves over an image: the part of a convolution that is not a shape.
///
/// ```
/// use dirnet_kernels::Conv;
/// let how = Conv::same(3).stride(2);
/// assert_eq!((how.pad, how.stride, how.dilation, how.groups), (1, 2, 1, 1));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv {
    /// Pixels between two neighbouring outputs.
    pub stride: usize,
    /// Pixels added on each of the four sides.
    pub pad: usize,
    /// Pixels between two neighbouring taps of the filter.
    pub dilation: usize,
    /// Independent groups of channels; as many as channels make a depthwise convolution.
    pub groups: usize,
}

impl Conv {
    /// Stride 1, no padding, no dilation, one group.
    pub const fn valid() -> Self {
        Conv { stride: 1, pad: 0, dilation: 1, groups: 1 }
    }
    /// Padding that keeps the image size at stride 1, for an odd filter of `k` by `k`.
    pub const fn same(k: usize) -> Self {
        Conv { pad: k / 2, ..Conv::valid() }
    }
    /// The same with another stride.
    pub const fn stride(self, stride: usize) -> Self {
        Conv { stride, ..self }
    }
    /// The same with another padding.
    pub const fn pad(self, pad: usize) -> Self {
        Conv { pad, ..self }
    }
    /// The same with another dilation.
    pub const fn dilation(self, dilation: usize) -> Self {
        Conv { dilation, ..self }
    }
    /// The same with another number of groups.
    pub const fn groups(self, groups: usize) -> Self {
        Conv { groups, ..self }
    }
}

/// Why two shapes do not fit an operation: both shapes and the rule that they break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeError(pub String);

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ShapeError {}

/// All sizes of one 2-D convolution.
///
/// ```text
/// y[n,o,i,j] = Σ_{c,u,v} x[n, c, i·stride + u·dilation - pad, j·stride + v·dilation - pad] · w[o,c,u,v]
/// ```
///
/// with `c` over the channels of the group that `o` belongs to, and `x` zero outside the image.
///
/// ```
/// use dirnet_kernels::{Conv, ConvGeom};
/// let g = ConvGeom::new(&[2, 3, 32, 32], &[16, 3, 3, 3], Conv::same(3).stride(2));
/// assert_eq!(g.y(), [2, 16, 16, 16]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvGeom {
    /// Images in the batch.
    pub n: usize,
    /// Input channels, all groups together.
    pub c: usize,
    /// Input height.
    pub h: usize,
    /// Input width.
    pub w: usize,
    /// Output channels, all groups together.
    pub o: usize,
    /// Filter height.
    pub kh: usize,
    /// Filter width.
    pub kw: usize,
    /// Output height.
    pub oh: usize,
    /// Output width.
    pub ow: usize,
    /// Stride, padding, dilation, groups.
    pub how: Conv,
}

impl ConvGeom {
    /// The geometry of filters `w` over images `x`.
    ///
    /// # Panics
    /// If the shapes do not fit; the message names both and the rule.
    #[track_caller]
    pub fn new(x: &[usize], w: &[usize], how: Conv) -> Self {
        Self::try_new(x, w, how).unwrap_or_else(|e| panic!("{e}"))
    }

    /// The same, for shapes that came from outside.
    ///
    /// # Errors
    /// If either shape is not of four sizes, a size, the stride, the dilation or the groups are
    /// zero, the channels do not divide into the groups or differ from the filter's, or the filter
    /// is larger than the padded image.
    pub fn try_new(x: &[usize], w: &[usize], how: Conv) -> Result<Self, ShapeError> {
        let fail =
            |rule: String| Err(ShapeError(format!("conv2d: {rule}: {x:?} * {w:?}, {how:?}")));
        let (&[n, c, h, width], &[o, cg, kh, kw]) = (x, w) else {
            return fail("images are N C H W and filters O C KH KW".into());
        };
        let Conv { stride, pad, dilation, groups } = how;
        if [n, c, h, width, o, cg, kh, kw, stride, dilation, groups].contains(&0) {
            return fail("every size, stride, dilation and group count is at least 1".into());
        }
        if c % groups != 0 || o % groups != 0 {
            return fail(format!("{groups} groups do not divide {c} and {o} channels"));
        }
        if cg != c / groups {
            return fail(format!(
                "a filter has {cg} channels, a group of the image {}",
                c / groups
            ));
        }
        let reach = |k: usize| (k - 1) * dilation + 1;
        if reach(kh) > h + 2 * pad || reach(kw) > width + 2 * pad {
            return fail("the filter is larger than the padded image".into());
        }
        let out = |size: usize, k: usize| (size + 2 * pad - reach(k)) / stride + 1;
        Ok(ConvGeom { n, c, h, w: width, o, kh, kw, oh: out(h, kh), ow: out(width, kw), how })
    }

    /// Shape of the images, `N C H W`.
    pub const fn x(&self) -> [usize; 4] {
        [self.n, self.c, self.h, self.w]
    }
    /// Shape of the filters, `O C/groups KH KW`.
    pub const fn filters(&self) -> [usize; 4] {
        [self.o, self.group_c(), self.kh, self.kw]
    }
    /// Shape of the output, `N O OH OW`.
    pub const fn y(&self) -> [usize; 4] {
        [self.n, self.o, self.oh, self.ow]
    }
    /// Input channels of one group.
    pub const fn group_c(&self) -> usize {
        self.c / self.how.groups
    }
    /// Output channels of one group.
    pub const fn group_o(&self) -> usize {
        self.o / self.how.groups
    }
    /// Elements of the images.
    pub const fn x_len(&self) -> usize {
        self.n * self.c * self.h * self.w
    }
    /// Elements of the filters.
    pub const fn w_len(&self) -> usize {
        self.o * self.taps()
    }
    /// Elements of the output.
    pub const fn y_len(&self) -> usize {
        self.n * self.o * self.oh * self.ow
    }
    /// Terms in one output's sum, padding included: the `k` of the equivalent matrix product.
    pub const fn taps(&self) -> usize {
        self.group_c() * self.kh * self.kw
    }
    /// Multiply-adds of one pass, padding included.
    pub const fn macs(&self) -> usize {
        self.y_len() * self.taps()
    }
    /// Each channel is a group of its own.
    pub const fn is_depthwise(&self) -> bool {
        self.how.groups == self.c && self.c > 1
    }

    /// The outputs of a row for which tap `v` of the filter lies inside the image of width `w`.
    ///
    /// For those `j`, the pixel is `j·stride + v·dilation - pad`.
    pub fn inside_x(&self, v: usize) -> Range<usize> {
        inside(self.w, self.ow, v, self.how)
    }
    /// The same along the height.
    pub fn inside_y(&self, u: usize) -> Range<usize> {
        inside(self.h, self.oh, u, self.how)
    }
}

/// `{ j < out : 0 <= j·stride + tap·dilation - pad < size }`, which is always a range.
fn inside(size: usize, out: usize, tap: usize, how: Conv) -> Range<usize> {
    let at = tap * how.dilation;
    let first = how.pad.saturating_sub(at).div_ceil(how.stride);
    let end = (size + how.pad).saturating_sub(at).div_ceil(how.stride).min(out);
    first.min(end)..end
}

/// All sizes of one 2-D pool, whose window is square.
///
/// ```
/// use dirnet_kernels::PoolGeom;
/// let g = PoolGeom::new(&[1, 8, 28, 28], 2, 2, 0);
/// assert_eq!(g.y(), [1, 8, 14, 14]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolGeom {
    /// Images in the batch.
    pub n: usize,
    /// Channels.
    pub c: usize,
    /// Input height.
    pub h: usize,
    /// Input width.
    pub w: usize,
    /// Side of the window.
    pub size: usize,
    /// Pixels between two windows.
    pub stride: usize,
    /// Pixels added on each side; they never win a maximum and count as zeros in an average.
    pub pad: usize,
    /// Output height.
    pub oh: usize,
    /// Output width.
    pub ow: usize,
}

impl PoolGeom {
    /// The geometry of a window of `size` by `size` over images `x`.
    ///
    /// # Panics
    /// If the shapes do not fit; the message names both and the rule.
    #[track_caller]
    pub fn new(x: &[usize], size: usize, stride: usize, pad: usize) -> Self {
        Self::try_new(x, size, stride, pad).unwrap_or_else(|e| panic!("{e}"))
    }

    /// The same, for shapes that came from outside.
    ///
    /// # Errors
    /// If the image is not of four sizes, a size is zero, the window is larger than 15 (its
    /// winner is kept in a byte) or than the padded image, or more than half of it is padding.
    pub fn try_new(
        x: &[usize],
        size: usize,
        stride: usize,
        pad: usize,
    ) -> Result<Self, ShapeError> {
        let fail = |rule: &str| {
            Err(ShapeError(format!(
                "pool2d: {rule}: {x:?}, window {size}, stride {stride}, padding {pad}"
            )))
        };
        let &[n, c, h, w] = x else { return fail("images are N C H W") };
        if [n, c, h, w, size, stride].contains(&0) {
            return fail("every size and stride is at least 1");
        }
        if size > 15 {
            return fail("a window is at most 15 by 15");
        }
        if 2 * pad > size {
            return fail("at most half of a window is padding");
        }
        if size > h + 2 * pad || size > w + 2 * pad {
            return fail("the window is larger than the padded image");
        }
        let out = |len: usize| (len + 2 * pad - size) / stride + 1;
        Ok(PoolGeom { n, c, h, w, size, stride, pad, oh: out(h), ow: out(w) })
    }

    /// Shape of the images, `N C H W`.
    pub const fn x(&self) -> [usize; 4] {
        [self.n, self.c, self.h, self.w]
    }
    /// Shape of the output, `N C OH OW`.
    pub const fn y(&self) -> [usize; 4] {
        [self.n, self.c, self.oh, self.ow]
    }
    /// Elements of the images.
    pub const fn x_len(&self) -> usize {
        self.n * self.c * self.h * self.w
    }
    /// Elements of the output.
    pub const fn y_len(&self) -> usize {
        self.n * self.c * self.oh * self.ow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inside_agrees_with_its_definition() {
        for size in 1..9 {
            for k in 1..4 {
                for (stride, pad, dilation) in
                    [(1, 0, 1), (1, 1, 1), (2, 1, 1), (2, 2, 2), (3, 1, 2)]
                {
                    let how = Conv { stride, pad, dilation, groups: 1 };
                    let Ok(g) = ConvGeom::try_new(&[1, 1, size, size], &[1, 1, k, k], how) else {
                        continue;
                    };
                    for v in 0..k {
                        let want: Vec<usize> = (0..g.ow)
                            .filter(|j| {
                                let at = (j * stride + v * dilation) as isize - pad as isize;
                                at >= 0 && (at as usize) < size
                            })
                            .collect();
                        assert_eq!(g.inside_x(v).collect::<Vec<_>>(), want, "{g:?} tap {v}");
                    }
                }
            }
        }
    }

    #[test]
    fn shape_errors_name_the_rule() {
        let e = ConvGeom::try_new(&[1, 4, 5, 5], &[2, 3, 3, 3], Conv::same(3)).unwrap_err();
        assert!(e.to_string().contains("a filter has 3 channels, a group of the image 4"), "{e}");
        let e = ConvGeom::try_new(&[1, 3, 2, 2], &[2, 3, 3, 3], Conv::valid()).unwrap_err();
        assert!(e.to_string().contains("larger than the padded image"), "{e}");
    }
}
