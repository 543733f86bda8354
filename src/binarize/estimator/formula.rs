//! Formulas in `x`: nodes in an array, their derivative, and a program that runs over tiles.

use dirnet_kernels::bits::sign;
use dirnet_kernels::elementwise::{map, zip};
use dirnet_kernels::{math, par};
use std::f32::consts::FRAC_2_SQRT_PI;

/// Numbers that go through a program together: a register of them is two kilobytes.
const TILE: usize = 512;

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum One {
    Tanh,
    Sech2,
    Exp,
    Log,
    Sqrt,
    Sin,
    Cos,
    Erf,
    Sigmoid,
    Sign,
}

/// A function of two numbers. The last three are what slopes at kinks are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Two {
    Add,
    Subtract,
    Multiply,
    Divide,
    /// The exponent is the same for all elements.
    Power,
    Min,
    Max,
    /// 1 where a ≤ b, else 0.
    AtMost,
    /// 1 where a < b, else 0.
    Below,
    /// b where a is not 0, else 0, whatever b is.
    Gate,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Node {
    X,
    Number(f32),
    Parameter(usize),
    One(One, usize),
    Two(Two, usize, usize),
}

/// Formulas that share their parts; a node comes after those it is made of.
#[derive(Clone, Debug, Default)]
pub(super) struct Formulas {
    nodes: Vec<Node>,
    /// Whether `x` is in it.
    moving: Vec<bool>,
}

impl Formulas {
    fn add(&mut self, node: Node) -> usize {
        if let Some(i) = self.nodes.iter().position(|n| *n == node) {
            return i;
        }
        self.moving.push(match node {
            Node::X => true,
            Node::Number(_) | Node::Parameter(_) => false,
            Node::One(_, a) => self.moving[a],
            Node::Two(_, a, b) => self.moving[a] || self.moving[b],
        });
        self.nodes.push(node);
        self.nodes.len() - 1
    }
    pub(super) fn x(&mut self) -> usize {
        self.add(Node::X)
    }
    pub(super) fn number(&mut self, value: f32) -> usize {
        self.add(Node::Number(value))
    }
    pub(super) fn parameter(&mut self, index: usize) -> usize {
        self.add(Node::Parameter(index))
    }
    pub(super) fn one(&mut self, f: One, a: usize) -> usize {
        self.add(Node::One(f, a))
    }
    pub(super) fn two(&mut self, f: Two, a: usize, b: usize) -> usize {
        self.add(Node::Two(f, a, b))
    }
    pub(super) fn negative(&mut self, a: usize) -> usize {
        let minus = self.number(-1.0);
        self.two(Two::Multiply, minus, a)
    }
    pub(super) fn clamp(&mut self, a: usize, low: usize, high: usize) -> usize {
        let a = self.two(Two::Max, a, low);
        self.two(Two::Min, a, high)
    }
    pub(super) fn is_moving(&self, a: usize) -> bool {
        self.moving[a]
    }

    /// The derivative of a formula with respect to `x`.
    ///
    /// Of `min` and `max` with one part that moves and one that stands still, that of the one that
    /// moves holds where they meet; of two that move, that of the first.
    pub(super) fn slope(&mut self, of: usize) -> usize {
        use Two::*;
        let (zero, unit) = (self.number(0.0), self.number(1.0));
        let mut d: Vec<usize> = Vec::with_capacity(of + 1);
        for i in 0..=of {
            let slope = match self.nodes[i] {
                _ if !self.moving[i] => zero,
                Node::X => unit,
                Node::Number(_) | Node::Parameter(_) => unreachable!("stands still"),
                Node::One(f, a) => {
                    let outer = self.outer(f, a, i);
                    self.two(Multiply, outer, d[a])
                }
                Node::Two(Multiply, a, b) => {
                    let (first, second) =
                        (self.two(Multiply, d[a], b), self.two(Multiply, a, d[b]));
                    self.two(Add, first, second)
                }
                Node::Two(Divide, a, b) => {
                    let part = self.two(Multiply, i, d[b]);
                    let above = self.two(Subtract, d[a], part);
                    self.two(Divide, above, b)
                }
                Node::Two(Power, a, n) => {
                    let less = self.two(Subtract, n, unit);
                    let power = self.two(Power, a, less);
                    let outer = self.two(Multiply, n, power);
                    self.two(Multiply, outer, d[a])
                }
                Node::Two(f @ (Min | Max), a, b) => {
                    let first = self.chosen(f, AtMost, a, b, d[a]);
                    let tie = if self.moving[a] { Below } else { AtMost };
                    let second = self.chosen(f, tie, b, a, d[b]);
                    self.two(Add, first, second)
                }
                Node::Two(f, a, b) => self.two(f, d[a], d[b]),
            };
            d.push(slope);
        }
        d[of]
    }

    /// The slope `d` of `a` where it is the one that `f` takes of `a` and `b`.
    fn chosen(&mut self, f: Two, compare: Two, a: usize, b: usize, d: usize) -> usize {
        let (low, high) = if f == Two::Min { (a, b) } else { (b, a) };
        let taken = self.two(compare, low, high);
        self.two(Two::Gate, taken, d)
    }

    /// The derivative of `f` at `a`; `y` is `f(a)`.
    fn outer(&mut self, f: One, a: usize, y: usize) -> usize {
        let unit = self.number(1.0);
        match f {
            One::Tanh => self.one(One::Sech2, a),
            One::Exp => y,
            One::Log => self.two(Two::Divide, unit, a),
            One::Sqrt => {
                let half = self.number(0.5);
                self.two(Two::Divide, half, y)
            }
            One::Sin => self.one(One::Cos, a),
            One::Cos => {
                let sin = self.one(One::Sin, a);
                self.negative(sin)
            }
            One::Erf => {
                let square = self.two(Two::Multiply, a, a);
                let square = self.negative(square);
                let (bell, height) = (self.one(One::Exp, square), self.number(FRAC_2_SQRT_PI));
                self.two(Two::Multiply, height, bell)
            }
            One::Sigmoid => {
                let rest = self.two(Two::Subtract, unit, y);
                self.two(Two::Multiply, y, rest)
            }
            One::Sign => self.number(0.0),
            One::Sech2 => unreachable!("only in slopes"),
        }
    }

    /// What computes a formula with these values of the parameters.
    pub(super) fn program(&self, of: usize, parameters: &[f32]) -> Program {
        let mut steps: Vec<Step> = Vec::new();
        let mut place = |step: Step| {
            steps.push(step);
            Operand::Tile(steps.len() - 1)
        };
        let mut found: Vec<Operand> = Vec::with_capacity(of + 1);
        for &node in &self.nodes[..=of] {
            found.push(match node {
                Node::X => Operand::X,
                Node::Number(value) => Operand::Number(value),
                Node::Parameter(i) => Operand::Number(parameters[i]),
                Node::One(f, a) => match found[a] {
                    Operand::Number(a) => Operand::Number(f.of(a)),
                    a => place(Step::One(f, a)),
                },
                Node::Two(f, a, b) => {
                    let (a, b) = (found[a], found[b]);
                    simple(f, a, b).unwrap_or_else(|| place(Step::Two(f, a, b)))
                }
            });
        }
        Program { steps, result: found[of] }.pruned()
    }
}

/// Where a number of a program comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Operand {
    X,
    Number(f32),
    /// The result of the step of this index.
    Tile(usize),
}

#[derive(Clone, Copy, Debug)]
enum Step {
    One(One, Operand),
    Two(Two, Operand, Operand),
}

/// What `f` of two operands is without a step of its own, if it can be told.
fn simple(f: Two, a: Operand, b: Operand) -> Option<Operand> {
    use Operand::Number;
    use Two::*;
    match (f, a, b) {
        (_, Number(a), Number(b)) => Some(Number(f.of(a, b))),
        (Multiply, Number(0.0), _) | (Multiply, _, Number(0.0)) | (Gate, _, Number(0.0)) => {
            Some(Number(0.0))
        }
        (Multiply | Divide | Power, a, Number(1.0)) | (Add | Subtract, a, Number(0.0)) => Some(a),
        (Multiply, Number(1.0), b) | (Add, Number(0.0), b) => Some(b),
        (Power, _, Number(0.0)) => Some(Number(1.0)),
        (Divide, Number(0.0), _) => Some(Number(0.0)),
        _ => None,
    }
}

/// Steps over tiles: each writes a register of its own.
#[derive(Clone, Debug)]
pub(super) struct Program {
    steps: Vec<Step>,
    result: Operand,
}

impl Program {
    /// Without the steps that the result does not need.
    fn pruned(self) -> Self {
        let mut needed = vec![false; self.steps.len()];
        let mark = |needed: &mut Vec<bool>, operand: Operand| {
            if let Operand::Tile(i) = operand {
                needed[i] = true;
            }
        };
        mark(&mut needed, self.result);
        for (i, step) in self.steps.iter().enumerate().rev() {
            if needed[i] {
                step.operands().into_iter().for_each(|a| mark(&mut needed, a));
            }
        }
        let place = |a: Operand| match a {
            Operand::Tile(i) => Operand::Tile(needed[..i].iter().filter(|n| **n).count()),
            other => other,
        };
        let kept = self.steps.iter().zip(&needed).filter(|(_, needed)| **needed);
        let steps = kept.map(|(step, _)| match *step {
            Step::One(f, a) => Step::One(f, place(a)),
            Step::Two(f, a, b) => Step::Two(f, place(a), place(b)),
        });
        Program { steps: steps.collect(), result: place(self.result) }
    }

    /// Calls `put(piece of y, results)` for the results of the elements of each piece.
    fn run(&self, x: &[f32], y: &mut [f32], put: impl Fn(&mut [f32], Source<'_>)) {
        par::scratch(self.steps.len() * TILE, |tiles| {
            for (x, y) in x.chunks(TILE).zip(y.chunks_mut(TILE)) {
                for (i, step) in self.steps.iter().enumerate() {
                    let (before, here) = tiles.split_at_mut(i * TILE);
                    let (source, here) = (|a| source(a, x, before), &mut here[..x.len()]);
                    match *step {
                        Step::One(f, a) => f.run(source(a), here),
                        Step::Two(f, a, b) => f.run(source(a), source(b), here),
                    }
                }
                put(y, source(self.result, x, tiles));
            }
        });
    }

    /// The formula at one place.
    pub(super) fn at(&self, x: f32) -> f32 {
        let mut y = [0.0];
        self.values(&[x], &mut y);
        y[0]
    }
    /// The formula at all elements of `x`.
    pub(super) fn values(&self, x: &[f32], y: &mut [f32]) {
        self.run(x, y, |y, found| match found {
            Source::Slice(found) => y.copy_from_slice(found),
            Source::Number(value) => y.fill(value),
        });
    }
    /// `y` times the formula at all elements of `x`.
    pub(super) fn times(&self, x: &[f32], y: &mut [f32]) {
        use dirnet_kernels::elementwise::{scale, zip_in_place};
        par::chunks(y, par::GRAIN, |i, y| {
            self.run(&x[i * par::GRAIN..][..y.len()], y, |y, found| match found {
                Source::Slice(found) => zip_in_place(y, found, |y, f| f * y),
                Source::Number(value) => scale(y, value),
            });
        });
    }
}

impl Step {
    fn operands(&self) -> [Operand; 2] {
        match *self {
            Step::One(_, a) => [a, a],
            Step::Two(_, a, b) => [a, b],
        }
    }
}

/// The numbers of an operand: one an element, or the same for all.
#[derive(Clone, Copy)]
enum Source<'a> {
    Slice(&'a [f32]),
    Number(f32),
}

fn source<'a>(a: Operand, x: &'a [f32], tiles: &'a [f32]) -> Source<'a> {
    match a {
        Operand::X => Source::Slice(x),
        Operand::Number(value) => Source::Number(value),
        Operand::Tile(i) => Source::Slice(&tiles[i * TILE..][..x.len()]),
    }
}

impl One {
    fn of(self, a: f32) -> f32 {
        let mut y = [0.0];
        self.run(Source::Slice(&[a]), &mut y);
        y[0]
    }

    fn run(self, a: Source<'_>, y: &mut [f32]) {
        let a = match a {
            Source::Slice(a) => a,
            Source::Number(a) => return y.fill(self.of(a)),
        };
        match self {
            One::Tanh => map(a, y, math::tanh),
            One::Sech2 => map(a, y, math::sech2),
            One::Exp => map(a, y, math::exp),
            One::Log => map(a, y, math::ln),
            One::Sqrt => map(a, y, f32::sqrt),
            One::Sin => map(a, y, math::sin),
            One::Cos => map(a, y, math::cos),
            One::Erf => map(a, y, math::erf),
            One::Sigmoid => map(a, y, math::sigmoid),
            One::Sign => map(a, y, sign),
        }
    }
}

impl Two {
    fn of(self, a: f32, b: f32) -> f32 {
        let mut y = [0.0];
        self.run(Source::Slice(&[a]), Source::Number(b), &mut y);
        y[0]
    }

    fn run(self, a: Source<'_>, b: Source<'_>, y: &mut [f32]) {
        fn each(a: Source<'_>, b: Source<'_>, y: &mut [f32], f: impl Fn(f32, f32) -> f32 + Sync) {
            match (a, b) {
                (Source::Slice(a), Source::Slice(b)) => zip(a, b, y, f),
                (Source::Slice(a), Source::Number(b)) => map(a, y, |a| f(a, b)),
                (Source::Number(a), Source::Slice(b)) => map(b, y, |b| f(a, b)),
                (Source::Number(a), Source::Number(b)) => y.fill(f(a, b)),
            }
        }
        let flag = |yes: bool| f32::from(u8::from(yes));
        match self {
            Two::Add => each(a, b, y, |a, b| a + b),
            Two::Subtract => each(a, b, y, |a, b| a - b),
            Two::Multiply => each(a, b, y, |a, b| a * b),
            Two::Divide => each(a, b, y, |a, b| a / b),
            Two::Min => each(a, b, y, |a, b| if a < b { a } else { b }),
            Two::Max => each(a, b, y, |a, b| if a > b { a } else { b }),
            Two::AtMost => each(a, b, y, |a, b| flag(a <= b)),
            Two::Below => each(a, b, y, |a, b| flag(a < b)),
            Two::Gate => each(a, b, y, |a, b| if a == 0.0 { 0.0 } else { b }),
            Two::Power => match (a, b) {
                (Source::Slice(a), Source::Number(n)) => power(a, n, y),
                _ => unreachable!("one number to the power of another was folded"),
            },
        }
    }
}

/// `y = a^n`; of a negative number it is a number only for a whole `n`.
fn power(a: &[f32], n: f32, y: &mut [f32]) {
    let size = |a: f32| math::exp(n * math::ln(a.abs()));
    if n == 2.0 {
        map(a, y, |a| a * a);
    } else if n == 3.0 {
        map(a, y, |a| a * a * a);
    } else if n.fract() != 0.0 {
        map(a, y, |a| if a < 0.0 { f32::NAN } else { size(a) });
    } else if n % 2.0 != 0.0 {
        map(a, y, |a| size(a).copysign(a));
    } else {
        map(a, y, size);
    }
}
