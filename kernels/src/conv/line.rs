//! Where the taps of a filter meet the image: the one place that cuts padding away.

use crate::geom::ConvGeom;

/// What one tap sees of the image along one row of outputs.
pub(super) struct Line {
    /// Where the first pixel lies among the group's channels; the next are a stride apart.
    pub pixel: usize,
    /// The outputs that see pixels; the others see padding.
    pub outputs: std::ops::Range<usize>,
}

/// `f(tap, i, line)` for every tap `(c,u,v)` and row of outputs `i`; no line where all is padding.
pub(super) fn for_each_line(g: &ConvGeom, mut f: impl FnMut(usize, usize, Option<Line>)) {
    let how = g.how;
    let mut tap = 0;
    for c in 0..g.group_c() {
        for u in 0..g.kh {
            let rows = g.inside_y(u);
            for v in 0..g.kw {
                let outputs = g.inside_x(v);
                for i in 0..g.oh {
                    let line = (rows.contains(&i) && !outputs.is_empty()).then(|| {
                        let p = i * how.stride + u * how.dilation - how.pad;
                        let q = outputs.start * how.stride + v * how.dilation - how.pad;
                        Line { pixel: (c * g.h + p) * g.w + q, outputs: outputs.clone() }
                    });
                    f(tap, i, line);
                }
                tap += 1;
            }
        }
    }
}
