//! A convolution planned once and run again and again.

use super::{depthwise, direct, im2col};
use crate::geom::ConvGeom;

/// [`conv2d`](super::conv2d) of one geometry with its filters: its plan made, its filters laid out as the
/// inner loops read them.
///
/// ```
/// use dirnet_kernels::{Conv, ConvGeom, conv::Prepared};
/// let g = ConvGeom::new(&[2, 1, 1, 3], &[1, 1, 1, 2], Conv::valid());
/// let prepared = Prepared::new(&g, &[1.0, 10.0]);
/// let mut y = [0.0; 2];
/// prepared.run(1, &[1.0, 2.0, 3.0], &mut y);
/// assert_eq!(y, [21.0, 32.0]);
/// ```
#[derive(Debug)]
pub struct Prepared {
    g: ConvGeom,
    way: Way,
}

/// The ways of [`conv2d`](super::conv2d).
#[derive(Debug)]
enum Way {
    Depthwise(depthwise::Prepared, Vec<f32>),
    Product(Vec<f32>),
    Direct(direct::Prepared),
}

impl Prepared {
    /// For at most `g.n` images a run.
    ///
    /// # Panics
    /// If `w` is not as long as the geometry says.
    #[track_caller]
    pub fn new(g: &ConvGeom, w: &[f32]) -> Prepared {
        assert_eq!(w.len(), g.w_len(), "conv::Prepared: length of the filters for {g:?}");
        let way = if depthwise::suits(g) {
            Way::Depthwise(depthwise::Prepared::new(g), w.to_vec())
        } else if im2col::suits(g) {
            Way::Product(w.to_vec())
        } else {
            Way::Direct(direct::Prepared::new(g, w))
        };
        Prepared { g: *g, way }
    }

    /// Its geometry; `n` is the most images of one run.
    pub fn geom(&self) -> &ConvGeom {
        &self.g
    }

    /// Bytes of memory it holds: its filters, and the tables of the plan.
    pub fn bytes(&self) -> usize {
        match &self.way {
            Way::Depthwise(prepared, w) => prepared.bytes() + size_of_val(&w[..]),
            Way::Product(w) => size_of_val(&w[..]),
            Way::Direct(prepared) => prepared.bytes(),
        }
    }

    /// Of `n` images, to the bit what [`conv2d`](super::conv2d) computes.
    ///
    /// Nothing is allocated on a worker thread of [`par::with_threads`](crate::par::with_threads), once
    /// its [`par::scratch`](crate::par::scratch) has grown; but for what `matrixmultiply` asks for where
    /// a single tap makes few channels of many.
    ///
    /// # Panics
    /// If there are more images than it was made for, or a length does not fit.
    #[track_caller]
    pub fn run(&self, n: usize, x: &[f32], y: &mut [f32]) {
        const OP: &str = "conv::Prepared";
        let most = self.g.n;
        assert!((1..=most).contains(&n), "{OP}: {n} images where {most} are the most");
        let g = ConvGeom { n, ..self.g };
        assert_eq!(x.len(), g.x_len(), "{OP}: length of the images for {g:?}");
        assert_eq!(y.len(), g.y_len(), "{OP}: length of the output for {g:?}");
        match &self.way {
            Way::Depthwise(prepared, w) => prepared.run(x, w, y),
            Way::Product(w) => im2col::forward(&g, x, w, y),
            Way::Direct(prepared) => prepared.run(x, y),
        }
    }
}
