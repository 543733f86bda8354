//! Losses: how far the outputs are from what they should be, as one number.

use crate::{Tensor, Var};
use dirnet_kernels::{elementwise::zip, math, reduce, softmax};

#[track_caller]
fn rows(name: &str, shape: &[usize]) -> (usize, usize) {
    let &[rows, cols] = shape else { panic!("{name}: rows of classes, not {shape:?}") };
    (rows, cols)
}

#[track_caller]
fn same(name: &str, a: &Var<'_>, b: &Var<'_>) {
    assert!(a.shape() == b.shape(), "{name}: shapes differ: {:?} and {:?}", a.shape(), b.shape());
}

impl<'t> Var<'t> {
    /// The logarithm of the softmax of each row.
    ///
    /// ```text
    /// forward    y[n,j] = x[n,j] - log Σ_k exp(x[n,k])
    /// backward   dx[n,j] = dy[n,j] - softmax[n,j] · Σ_k dy[n,k]
    /// ```
    ///
    /// # Panics
    /// If it is no matrix.
    #[track_caller]
    pub fn log_softmax(&self) -> Var<'t> {
        let (n, k) = rows("log_softmax", self.shape());
        let y = Tensor::build([n, k], |y| softmax::log_softmax(n, k, self.value(), y));
        let saved = y.clone();
        self.tape().record("log_softmax", y, [self], move |dy, _| {
            [Some(Tensor::build([n, k], |dx| softmax::log_softmax_dx(n, k, &saved, &dy, dx)))]
        })
    }

    /// `exp(x) / Σ exp(x)` of each row: the probabilities that logits stand for.
    ///
    /// # Panics
    /// If it is no matrix.
    #[track_caller]
    pub fn softmax(&self) -> Var<'t> {
        self.log_softmax().exp()
    }

    /// The mean over the rows of `-log softmax` at the label, for `N K` logits and `N` labels.
    ///
    /// ```text
    /// forward    y = -1/N Σ_n log softmax(x[n])[label[n]]
    /// backward   dx[n] = dy/N · (softmax(x[n]) - one at the label)
    /// ```
    ///
    /// # Panics
    /// If there are not as many labels as rows, or a label is not below `K`.
    #[track_caller]
    pub fn cross_entropy(&self, labels: &[u32]) -> Var<'t> {
        self.cross_entropy_smoothed(labels, 0.0)
    }

    /// The same against labels that are smoothed: the target has `1 - s + s/K` at the label and
    /// `s/K` elsewhere (Szegedy et al., 2015, arXiv 1512.00567).
    ///
    /// # Panics
    /// If there are not as many labels as rows, or a label is not below `K`.
    #[track_caller]
    pub fn cross_entropy_smoothed(&self, labels: &[u32], smoothing: f32) -> Var<'t> {
        let (n, k) = rows("cross_entropy", self.shape());
        assert_eq!(labels.len(), n, "cross_entropy: a label for each row of {:?}", self.shape());
        let bad = labels.iter().find(|&&label| label as usize >= k);
        assert!(bad.is_none(), "cross_entropy: label {} of {k} classes", bad.unwrap_or(&0));
        let target = Tensor::build([n, k], |t| {
            t.fill(smoothing / k as f32);
            for (t, &label) in t.chunks_mut(k).zip(labels) {
                t[label as usize] += 1.0 - smoothing;
            }
        });
        let log_p = Tensor::build([n, k], |y| softmax::log_softmax(n, k, self.value(), y));
        let loss = -reduce::dot(&target, &log_p) / n as f64;
        self.tape().record("cross_entropy", Tensor::scalar(loss as f32), [self], move |dy, _| {
            let each = dy.item() / n as f32;
            [Some(Tensor::build([n, k], |dx| {
                zip(&log_p, &target, dx, |log_p, target| each * (math::exp(log_p) - target));
            }))]
        })
    }

    /// The mean squared difference.
    ///
    /// ```text
    /// forward    y = mean((a - b)²)
    /// backward   da = 2·dy/count · (a - b) = -db
    /// ```
    ///
    /// # Panics
    /// If the shapes differ.
    #[track_caller]
    pub fn mse(&self, target: &Var<'t>) -> Var<'t> {
        same("mse", self, target);
        (self - target).square().mean()
    }

    /// The mean of a difference `d` that is squared near zero and absolute beyond (Girshick, 2015,
    /// arXiv 1504.08083).
    ///
    /// ```text
    /// forward    y = mean of  d²/(2·beta)  where |d| < beta,  |d| - beta/2  elsewhere
    /// backward   da = dy/count · clamp(d/beta, -1, 1) = -db
    /// ```
    ///
    /// # Panics
    /// If the shapes differ, or `beta` is not above zero.
    #[track_caller]
    pub fn smooth_l1(&self, target: &Var<'t>, beta: f32) -> Var<'t> {
        same("smooth_l1", self, target);
        assert!(beta > 0.0, "smooth_l1: beta {beta} is not above zero");
        let curve = move |d: f32| {
            if d.abs() < beta { 0.5 * d * d / beta } else { d.abs() - 0.5 * beta }
        };
        (self - target)
            .map_from_input("smooth_l1", curve, move |d| (d / beta).clamp(-1.0, 1.0))
            .mean()
    }

    /// The Kullback-Leibler divergence of a student's logits from a teacher's, both softened by a
    /// temperature `T`, times `T²` so that its gradient keeps its size (Hinton et al., 2015, arXiv
    /// 1503.02531). The teacher gets no gradient.
    ///
    /// ```text
    /// forward    y = T²/N Σ_n Σ_k p[n,k] · (log p[n,k] - log q[n,k]),
    ///            p = softmax(teacher/T),  q = softmax(x/T)
    /// backward   dx = dy · T/N · (q - p)
    /// ```
    ///
    /// # Panics
    /// If the shapes differ, or the temperature is not above zero.
    #[track_caller]
    pub fn kl_div(&self, teacher: &Var<'t>, temperature: f32) -> Var<'t> {
        same("kl_div", self, teacher);
        assert!(temperature > 0.0, "kl_div: temperature {temperature} is not above zero");
        let (n, k) = rows("kl_div", self.shape());
        let soft = |x: &Tensor| {
            let x = x.clone().map(|x| x / temperature);
            Tensor::build([n, k], |y| softmax::log_softmax(n, k, &x, y))
        };
        let (log_q, log_p) = (soft(self.value()), soft(teacher.value()));
        let p = log_p.clone().map(math::exp);
        let divergence = reduce::dot(&p, &log_p) - reduce::dot(&p, &log_q);
        let y = (f64::from(temperature).powi(2) * divergence / n as f64) as f32;
        self.tape().record("kl_div", Tensor::scalar(y), [self], move |dy, _| {
            let each = dy.item() * temperature / n as f32;
            [Some(Tensor::build([n, k], |dx| {
                zip(&log_q, &p, dx, |log_q, p| each * (math::exp(log_q) - p));
            }))]
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::gradcheck;

    #[test]
    fn log_softmax() {
        gradcheck([&[3, 4]], |[x]| x.log_softmax());
        gradcheck([&[3, 4]], |[x]| x.softmax());
    }
    #[test]
    fn cross_entropy() {
        gradcheck([&[3, 4]], |[x]| x.cross_entropy(&[0, 3, 1]));
        gradcheck([&[3, 4]], |[x]| x.cross_entropy_smoothed(&[0, 3, 1], 0.1));
    }
    #[test]
    fn mse() {
        gradcheck([&[3, 4], &[3, 4]], |[a, b]| a.mse(&b));
    }
    #[test]
    fn smooth_l1() {
        gradcheck([&[5], &[5]], |[a, b]| (a * 3.0).smooth_l1(&b, 0.5));
    }
    #[test]
    fn kl_div() {
        gradcheck([&[3, 4]], |[x]| {
            let teacher = x.tape().constant(crate::Tensor::new(
                [3, 4],
                (0..12).map(|i| (i as f32 * 0.7).sin()).collect(),
            ));
            x.kl_div(&teacher, 2.0)
        });
    }
}
