//! Lines with a bend that is learned for each channel: what stands for a `Hardtanh` in some binary networks.

use crate::{Tensor, Var};
use dirnet_kernels::bend::Bend;

impl<'t> Var<'t> {
    /// `max(x, 0) + a · min(x, 0)` with a learned slope `a` a channel (He et al., 2015, arXiv
    /// 1502.01852). `x` is `N C …`, `a` has `C` numbers.
    ///
    /// ```text
    /// backward   dx = dy where x > 0, else a·dy;   da[c] = Σ dy·min(x, 0)
    /// ```
    ///
    /// # Panics
    /// If there are not as many slopes as channels; here and below.
    #[track_caller]
    pub fn prelu(&self, a: &Var<'t>) -> Var<'t> {
        let line = Line::of("prelu", self, [None, None, Some(a), None]);
        self.tape().record("prelu", line.values(self), [self, a], move |dy, _| {
            let (dx, [_, _, da, _]) = line.backward(dy);
            [Some(dx), Some(da)]
        })
    }

    /// `prelu(x - g) + z`, all learned: the `RPReLU` of ReActNet (Liu et al., 2020, arXiv 2003.03488). With
    /// `g` (`before`), the slope `a` and `z` (`behind`) a channel, to the bit the same as the three
    /// operations, in one pass over memory.
    ///
    /// ```text
    /// backward   dx = dy where x > g, else a·dy;   dg[c] = -Σ dx,  da[c] = Σ dy·min(x - g, 0),  dz[c] = Σ dy
    /// ```
    #[track_caller]
    pub fn rprelu(&self, before: &Var<'t>, slope: &Var<'t>, behind: &Var<'t>) -> Var<'t> {
        let line = Line::of("rprelu", self, [Some(before), None, Some(slope), Some(behind)]);
        let parents = [self, before, slope, behind];
        self.tape().record("rprelu", line.values(self), parents, move |dy, _| {
            let (dx, [before, _, slope, behind]) = line.backward(dy);
            [Some(dx), Some(before), Some(slope), Some(behind)]
        })
    }

    /// `a · max(x, 0) + b · min(x, 0)` with learned slopes a channel: the maxout of AdaBin (Tu et al., 2022,
    /// arXiv 2208.08084).
    ///
    /// ```text
    /// backward   dx = a·dy where x > 0, else b·dy;   da[c] = Σ dy·max(x, 0),  db[c] = Σ dy·min(x, 0)
    /// ```
    #[track_caller]
    pub fn maxout(&self, above: &Var<'t>, below: &Var<'t>) -> Var<'t> {
        let line = Line::of("maxout", self, [None, Some(above), Some(below), None]);
        self.tape().record("maxout", line.values(self), [self, above, below], move |dy, _| {
            let (dx, [_, above, below, _]) = line.backward(dy);
            [Some(dx), Some(above), Some(below)]
        })
    }
}

/// What was bent, and how.
struct Line {
    x: Tensor,
    size: [usize; 3],
    at: Tensor,
    above: Tensor,
    below: Tensor,
    by: Tensor,
}

impl Line {
    /// By learned numbers `[at, above, below, by]`; where there are none, as a line without a bend has them.
    #[track_caller]
    fn of<'t>(op: &str, x: &Var<'t>, learned: [Option<&Var<'t>>; 4]) -> Line {
        let mut size = [0; 3];
        for numbers in learned.into_iter().flatten() {
            size = super::norm::channels(op, x.shape(), numbers.shape()).into();
        }
        let number = |i: usize, usual| match learned[i] {
            Some(var) => var.value().clone(),
            None => Tensor::full([size[1]], usual),
        };
        let [at, above] = [number(0, 0.0), number(1, 1.0)];
        let [below, by] = [number(2, 1.0), number(3, 0.0)];
        Line { x: x.value().clone(), size, at, above, below, by }
    }

    fn job(&self) -> Bend<'_> {
        let Line { size, at, above, below, by, .. } = self;
        Bend { size: *size, at, above, below, by }
    }

    fn values(&self, x: &Var<'_>) -> Tensor {
        Tensor::build(x.shape(), |y| self.job().forward(&self.x, y))
    }

    /// The gradients of `x` and of the four numbers.
    fn backward(&self, mut dy: Tensor) -> (Tensor, [Tensor; 4]) {
        let sums = self.job().backward(&self.x, dy.data_mut());
        let of = |which: usize, sign: f64| {
            Tensor::build([sums.len()], |y| {
                y.iter_mut().zip(&sums).for_each(|(y, sums)| *y = (sign * sums[which]) as f32);
            })
        };
        (dy, [of(1, -1.0), of(2, 1.0), of(3, 1.0), of(0, 1.0)])
    }
}

#[cfg(test)]
mod tests {
    use crate::{Params, Rng, Tape, Tensor, Var, gradcheck};

    #[test]
    fn prelu() {
        gradcheck([&[2, 3, 2, 2], &[3]], |[x, a]| x.prelu(&a));
    }
    #[test]
    fn rprelu() {
        gradcheck([&[2, 3, 2, 2], &[3], &[3], &[3]], |[x, g, a, z]| x.rprelu(&g, &a, &z));
        gradcheck([&[5, 3], &[3], &[3], &[3]], |[x, g, a, z]| x.rprelu(&g, &a, &z));
    }
    #[test]
    fn maxout() {
        gradcheck([&[2, 3, 2, 2], &[3], &[3]], |[x, a, b]| x.maxout(&a, &b));
    }

    #[test]
    fn they_are_several_operations_in_one() {
        let (params, mut rng) = (Params::new(), Rng::seed(8));
        for shape in [&[3, 4, 5, 7][..], &[6, 4]] {
            let x = Tensor::randn(shape, 1.0, &mut rng);
            let covector = Tensor::randn(shape, 1.0, &mut rng);
            let numbers = [(); 3].map(|()| Tensor::randn([4], 0.5, &mut rng));
            let run = |f: &dyn for<'t> Fn(&Var<'t>, &[Var<'t>; 3]) -> Var<'t>| {
                let tape = Tape::train(&params);
                let x = tape.variable(&x);
                let numbers = numbers.each_ref().map(|n| tape.variable(n));
                let y = f(&x, &numbers);
                let grads = (&y * tape.constant(&covector)).sum().backward();
                let of = |v: &Var<'_>| grads.wrt(v).cloned();
                let mut all = vec![of(&x)];
                all.extend(numbers.iter().map(of));
                (y.value().clone(), all)
            };
            let check = |(y, grads): (Tensor, Vec<Option<Tensor>>),
                         (want, wants): (Tensor, Vec<Option<Tensor>>)| {
                assert_eq!(y, want);
                assert_eq!(grads[0], wants[0]);
                for (grad, want) in grads.iter().zip(&wants) {
                    assert_eq!(grad.is_some(), want.is_some());
                    let pairs = grad.iter().zip(want).flat_map(|(g, w)| g.iter().zip(&**w));
                    for (g, w) in pairs {
                        assert!((g - w).abs() <= 1e-5 * (1.0 + w.abs()), "{g} and {w}");
                    }
                }
            };
            check(
                run(&|x, [g, a, z]| x.rprelu(g, a, z)),
                run(&|x, [g, a, z]| x.add_channels(&-g).prelu(a).add_channels(z)),
            );
            check(
                run(&|x, [a, b, _]| x.maxout(a, b)),
                run(&|x, [a, b, _]| x.relu().mul_channels(a) - (-x).relu().mul_channels(b)),
            );
        }
    }

    #[test]
    #[should_panic(expected = "prelu: no channels in shape [3]")]
    fn a_row_of_numbers_is_refused() {
        let params = Params::new();
        let tape = Tape::eval(&params);
        let x = tape.constant(Tensor::zeros([3]));
        x.prelu(&x);
    }

    #[test]
    #[should_panic(expected = "rprelu: one number a channel")]
    fn other_numbers_of_channels_are_refused() {
        let params = Params::new();
        let tape = Tape::eval(&params);
        let [x, three, two] =
            [vec![2, 3], vec![3], vec![2]].map(|shape| tape.constant(Tensor::zeros(shape)));
        x.rprelu(&two, &three, &three);
    }
}
