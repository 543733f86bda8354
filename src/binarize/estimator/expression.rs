//! An estimator typed as an expression: `soft = tanh(t*x)/t; t = 0.1..10`.

use super::formula::{Formulas, One, Program, Two};
use super::{Elements, Estimator};
use crate::Error;
use crate::error::near_miss;
use std::sync::Arc;

/// Names of functions and how many arguments they take.
const FUNCTIONS: &[(&str, usize)] = &[
    ("tanh", 1),
    ("exp", 1),
    ("log", 1),
    ("sqrt", 1),
    ("abs", 1),
    ("sin", 1),
    ("cos", 1),
    ("erf", 1),
    ("sigmoid", 1),
    ("relu", 1),
    ("hardtanh", 1),
    ("sign", 1),
    ("min", 2),
    ("max", 2),
    ("clamp", 3),
];

/// Words that mean something already.
const TAKEN: &[&str] = &["x", "pi", "lin", "soft", "weights", "activations"];

/// Longer than any curve one would type, and short enough for brackets within brackets.
const LONGEST: usize = 1000;

/// A parameter: from, to, and whether it moves evenly rather than by equal factors.
#[derive(Clone, Copy, Debug)]
struct Range {
    from: f32,
    to: f32,
    even: bool,
}

impl Range {
    fn at(&self, progress: f32) -> f32 {
        match self.even || self.from == self.to {
            true => self.from + (self.to - self.from) * progress,
            false => self.from * (self.to / self.from).powf(progress),
        }
    }
}

/// A curve typed as `soft = EXPRESSION; NAME = NUMBER; NAME = FROM..TO; …`, at one moment of training.
///
/// ```text
/// soft    the expression in x, with + - * / ^, brackets, pi, tanh exp log sqrt abs sin cos erf
///         sigmoid relu hardtanh sign min max clamp; exponents must not contain x
/// slope   its derivative; sign has slope 0
/// ```
///
/// At a kink the slope of the inside holds: that of `clamp(x, -1, 1)` is 1 at both ends. In general,
/// where two arguments of `min` or `max` meet, the one that moves with `x` decides, and of two
/// that do, the first; so the slope of `relu(x)` and of `abs(x)`, which is `max(x, -x)`, is 1 at 0.
///
/// A parameter is a number, a range `0.1..10` passed through by equal factors in the course of
/// training, or a range `lin(0..1)` passed through evenly. The functions are those of
/// `dirnet_kernels::math`, whose errors are stated there.
///
/// ```
/// let e = dirnet::binarize::estimator("soft = clamp(c*x, -1, 1); c = 2")?;
/// assert_eq!((e.slope(0.5), e.slope(0.6)), (2.0, 0.0));
/// assert_eq!(e.name(), "soft=clamp(c*x,-1,1);c=2");
/// # Ok::<(), dirnet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Expression {
    typed: Arc<Typed>,
    soft: Program,
    slope: Program,
}

/// What was typed, for all moments.
#[derive(Debug)]
struct Typed {
    name: String,
    formulas: Formulas,
    soft: usize,
    slope: usize,
    parameters: Vec<Range>,
}

impl Expression {
    /// # Errors
    /// If the text does not parse, or the curve is constant or not finite on [-10, 10] at a moment
    /// of training.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let mut parser = Parser { text, at: 0, formulas: Formulas::default(), used: Vec::new() };
        if text.len() > LONGEST {
            return Err(Error::Setting(format!(
                "an estimator of {} bytes, expected at most {LONGEST}",
                text.len()
            )));
        }
        let (soft, parameters) = parser.whole()?;
        let slope = parser.formulas.slope(soft);
        let name: String = text.split_whitespace().collect();
        let name = name.trim_end_matches(';').to_string();
        let typed = Arc::new(Typed { name, formulas: parser.formulas, soft, slope, parameters });
        let points: Vec<f32> = (-400..=400).map(|i| i as f32 / 40.0).collect();
        for moment in 0..=100 {
            Expression::at(&typed, moment as f32 / 100.0).check(&points, moment)?;
        }
        Ok(Expression::at(&typed, 0.0))
    }

    fn at(typed: &Arc<Typed>, progress: f32) -> Self {
        let values: Vec<f32> = typed.parameters.iter().map(|p| p.at(progress)).collect();
        let program = |formula| typed.formulas.program(formula, &values);
        let (soft, slope) = (program(typed.soft), program(typed.slope));
        Expression { typed: typed.clone(), soft, slope }
    }

    fn check(&self, points: &[f32], percent: i32) -> Result<(), Error> {
        let fail = |why: String| {
            let name = &self.typed.name;
            Err(Error::Setting(format!("estimator \"{name}\" {why} ({percent} % into training)")))
        };
        let mut values = vec![0.0; points.len()];
        for (what, program) in [("value", &self.soft), ("slope", &self.slope)] {
            program.values(points, &mut values);
            if let Some(i) = values.iter().position(|y| !y.is_finite()) {
                let (x, y) = (points[i], values[i]);
                return fail(format!("has no finite {what} at x = {x}, but {y}"));
            }
        }
        match values.iter().all(|&slope| slope == 0.0) {
            true => fail("has slope 0 everywhere on [-10, 10]".into()),
            false => Ok(()),
        }
    }
}

impl Estimator for Expression {
    fn name(&self) -> &str {
        &self.typed.name
    }
    fn soft(&self, x: f32) -> f32 {
        self.soft.at(x)
    }
    fn slope(&self, x: f32) -> f32 {
        self.slope.at(x)
    }
    fn fit(&self, _: &Elements<'_>, progress: f32) -> Option<Arc<dyn Estimator>> {
        Some(Arc::new(Expression::at(&self.typed, progress)))
    }
    fn backward(&self, x: &[f32], dy: &mut [f32]) {
        self.slope.times(x, dy);
    }
}

/// Recursive descent: a sum of products of powers. A word that is no function is a parameter,
/// which must be set behind the expression.
struct Parser<'a> {
    text: &'a str,
    at: usize,
    formulas: Formulas,
    /// Parameters that the expression uses, and where first.
    used: Vec<(&'a str, usize)>,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }
    fn skip(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }
    fn fail<T>(&self, at: usize, expected: &str) -> Result<T, Error> {
        let rest = self.text[at..].trim_start();
        let at = self.text.len() - rest.len();
        let found = match (word(rest), rest.chars().next()) {
            (_, None) => "the end".into(),
            ("", Some(c)) => format!("\"{c}\""),
            (word, _) => format!("\"{word}\""),
        };
        let (text, at) = (self.text, self.text[..at].chars().count() + 1);
        Err(Error::Setting(format!(
            "estimator \"{text}\": found {found} at position {at}, expected {expected}"
        )))
    }
    fn take(&mut self, what: &str) -> bool {
        self.skip();
        let found = self.rest().starts_with(what);
        self.at += if found { what.len() } else { 0 };
        found
    }
    fn need(&mut self, what: &str) -> Result<(), Error> {
        match self.take(what) {
            true => Ok(()),
            false => self.fail(self.at, &format!("\"{what}\"")),
        }
    }
    fn word(&mut self) -> &'a str {
        self.skip();
        let word = word(self.rest());
        self.at += word.len();
        word
    }

    fn whole(&mut self) -> Result<(usize, Vec<Range>), Error> {
        self.need("soft")?;
        self.need("=")?;
        let soft = self.sum()?;
        let mut set: Vec<(&str, Range)> = Vec::new();
        while self.take(";") {
            self.skip();
            if !self.rest().is_empty() {
                let parameter = self.setting(&set)?;
                set.push(parameter);
            }
        }
        if !self.rest().is_empty() {
            return self.fail(self.at, "an operator, \";\" or the end");
        }
        let mut parameters = Vec::new();
        for &(name, at) in &self.used {
            match set.iter().find(|(n, _)| *n == name) {
                Some((_, range)) => parameters.push(*range),
                None => {
                    let known: Vec<_> = set.iter().map(|(n, _)| *n).chain(["x", "pi"]).collect();
                    let hint = near_miss(name, known)
                        .map_or(String::new(), |n| format!("; did you mean \"{n}\"?"));
                    let what = format!("x, pi or a parameter set as \"; {name} = NUMBER\"{hint}");
                    return self.fail(at, &what);
                }
            }
        }
        Ok((soft, parameters))
    }

    /// `NAME = NUMBER`, `NAME = FROM..TO` or `NAME = lin(FROM..TO)`
    fn setting(&mut self, set: &[(&str, Range)]) -> Result<(&'a str, Range), Error> {
        let start = self.at;
        let name = self.word();
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return self.fail(start, "NAME = NUMBER, NAME = FROM..TO or NAME = lin(FROM..TO)");
        }
        if TAKEN.contains(&name) || FUNCTIONS.iter().any(|(f, _)| *f == name) {
            return self.fail(start, "a name that means nothing else");
        }
        if set.iter().any(|(n, _)| *n == name) {
            return self.fail(start, "a parameter that is not set already");
        }
        if !self.used.iter().any(|(n, _)| *n == name) {
            return self.fail(start, "a parameter that the expression uses");
        }
        self.need("=")?;
        let even = self.take("lin");
        if even {
            self.need("(")?;
        }
        self.skip();
        let start = self.at;
        let from = self.number()?;
        let to = if self.take("..") { self.number()? } else { from };
        if even {
            self.need(")")?;
        } else if from != to && from * to <= 0.0 {
            let what = format!("ends of one sign, or lin({from}..{to})");
            return self.fail(start, &what);
        }
        Ok((name, Range { from, to, even }))
    }

    /// A number with its sign.
    fn number(&mut self) -> Result<f32, Error> {
        let minus = self.take("-");
        self.skip();
        let at = self.at;
        match self.digits()? {
            Some(size) => Ok(if minus { -size } else { size }),
            None => self.fail(at, "a number, FROM..TO or lin(FROM..TO)"),
        }
    }

    /// Digits, if they are next.
    fn digits(&mut self) -> Result<Option<f32>, Error> {
        let count = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let (start, rest) = (self.at, self.rest());
        let mut n = count(rest);
        // `0.1..10` is a range of two numbers.
        if rest[n..].starts_with('.') && !rest[n..].starts_with("..") {
            n += 1 + count(&rest[n + 1..]);
        }
        if n == 0 {
            return Ok(None);
        }
        if let Some(power) = rest[n..].strip_prefix(['e', 'E']) {
            let sign = usize::from(power.starts_with(['-', '+']));
            let digits = count(&power[sign..]);
            n += if digits > 0 { 1 + sign + digits } else { 0 };
        }
        self.at += n;
        match rest[..n].parse::<f32>() {
            Ok(value) if value.is_finite() => Ok(Some(value)),
            _ => self.fail(start, "a number"),
        }
    }

    fn sum(&mut self) -> Result<usize, Error> {
        let mut left = self.product()?;
        loop {
            let f = match () {
                () if self.take("+") => Two::Add,
                () if self.take("-") => Two::Subtract,
                () => return Ok(left),
            };
            let right = self.product()?;
            left = self.formulas.two(f, left, right);
        }
    }

    fn product(&mut self) -> Result<usize, Error> {
        let mut left = self.signed()?;
        loop {
            let f = match () {
                () if self.take("*") => Two::Multiply,
                () if self.take("/") => Two::Divide,
                () => return Ok(left),
            };
            let right = self.signed()?;
            left = self.formulas.two(f, left, right);
        }
    }

    fn signed(&mut self) -> Result<usize, Error> {
        if self.take("-") {
            let a = self.signed()?;
            return Ok(self.formulas.negative(a));
        }
        let base = self.atom()?;
        if !self.take("^") {
            return Ok(base);
        }
        let at = self.at;
        let exponent = self.signed()?;
        match self.formulas.is_moving(exponent) {
            true => self.fail(at, "an exponent without x"),
            false => Ok(self.formulas.two(Two::Power, base, exponent)),
        }
    }

    fn atom(&mut self) -> Result<usize, Error> {
        if self.take("(") {
            let inside = self.sum()?;
            self.need(")")?;
            return Ok(inside);
        }
        if let Some(value) = self.digits()? {
            return Ok(self.formulas.number(value));
        }
        let start = self.at;
        let name = self.word();
        if self.rest().trim_start().starts_with('(') && !name.is_empty() {
            return self.call(name, start);
        }
        match name {
            "" => self.fail(start, "a number, a name or \"(\""),
            "x" => Ok(self.formulas.x()),
            "pi" => Ok(self.formulas.number(std::f32::consts::PI)),
            _ if FUNCTIONS.iter().any(|(f, _)| *f == name) => self.fail(self.at, "\"(\""),
            _ => {
                let known = self.used.iter().position(|(n, _)| *n == name);
                let index = known.unwrap_or_else(|| {
                    self.used.push((name, start));
                    self.used.len() - 1
                });
                Ok(self.formulas.parameter(index))
            }
        }
    }

    fn call(&mut self, name: &str, start: usize) -> Result<usize, Error> {
        let names = || FUNCTIONS.iter().map(|(f, _)| *f);
        let Some(&(_, count)) = FUNCTIONS.iter().find(|(f, _)| *f == name) else {
            let hint = near_miss(name, names())
                .map_or(String::new(), |n| format!("did you mean \"{n}\"? "));
            let known: Vec<_> = names().collect();
            return self.fail(start, &format!("a function ({hint}known: {})", known.join(", ")));
        };
        let mut arguments = [0; 3];
        for (i, argument) in arguments[..count].iter_mut().enumerate() {
            self.need(if i == 0 { "(" } else { "," })?;
            *argument = self.sum()?;
        }
        self.need(")")?;
        let [a, b, c] = arguments;
        let formulas = &mut self.formulas;
        let one = match name {
            "min" => return Ok(formulas.two(Two::Min, a, b)),
            "max" => return Ok(formulas.two(Two::Max, a, b)),
            "clamp" => return Ok(formulas.clamp(a, b, c)),
            "hardtanh" => {
                let (low, high) = (formulas.number(-1.0), formulas.number(1.0));
                return Ok(formulas.clamp(a, low, high));
            }
            "relu" => {
                let zero = formulas.number(0.0);
                return Ok(formulas.two(Two::Max, a, zero));
            }
            "abs" => {
                let other = formulas.negative(a);
                return Ok(formulas.two(Two::Max, a, other));
            }
            "tanh" => One::Tanh,
            "exp" => One::Exp,
            "log" => One::Log,
            "sqrt" => One::Sqrt,
            "sin" => One::Sin,
            "cos" => One::Cos,
            "erf" => One::Erf,
            "sigmoid" => One::Sigmoid,
            "sign" => One::Sign,
            _ => unreachable!("{name} is in the list of functions"),
        };
        Ok(formulas.one(one, a))
    }
}

/// The letters and digits that a text begins with.
fn word(text: &str) -> &str {
    &text[..text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::super::{check_estimator, estimator};
    use super::Elements;

    #[test]
    fn an_expression_equal_to_ede_has_its_slopes() {
        let typed = estimator("soft = max(1/t, 1)*tanh(t*x); t = 0.1..10").unwrap();
        let ede = estimator("ede").unwrap();
        // More than one piece of the work, and a last tile that is not full.
        let x: Vec<f32> = (0..70_001).map(|i| (i % 601) as f32 / 100.0 - 3.0).collect();
        for progress in [0.0, 0.3, 0.7, 1.0] {
            let (mut a, mut b) = (vec![1.5; x.len()], vec![1.5; x.len()]);
            typed.fit(&Elements::from(&x), progress).unwrap().backward(&x, &mut a);
            ede.fit(&Elements::from(&x), progress).unwrap().backward(&x, &mut b);
            for (a, b) in a.iter().zip(&b) {
                assert!((a - b).abs() <= 1e-5 * b.abs().max(1e-3), "{a} and {b}");
            }
        }
    }

    #[test]
    fn expressions_of_the_guide_are_what_it_says() {
        let guide = include_str!("../../../docs/estimators.md");
        let rows: Vec<_> = guide.lines().filter_map(|l| l.strip_prefix("| `soft")).collect();
        assert!(rows.len() >= 5);
        for row in rows {
            let cells: Vec<_> = row.split('`').collect();
            let e = [format!("soft{}", cells[0]), cells[2].to_string()].map(|e| estimator(&e));
            let [typed, named] = e.map(|e| e.unwrap());
            for (progress, x) in [(0.0, -0.7), (0.3, 0.2), (0.9, 0.05), (1.0, 1.3)] {
                let slope = |e: &std::sync::Arc<dyn super::Estimator>| {
                    e.fit(&Elements::from(&[1.0]), progress).unwrap_or_else(|| e.clone()).slope(x)
                };
                let (a, b) = (slope(&typed), slope(&named));
                assert!((a - b).abs() <= 2e-5 * b.abs().max(1e-3), "{row} at {x}: {a}, {b}");
            }
        }
    }

    #[test]
    fn slopes_are_derivatives_and_names_parse_again() {
        for text in [
            "soft = x - x^3/3*0.1",
            "soft = x^5/100 + (x*x + 1)^-2 + (x + 11)^n/9; n = lin(0.5..2)",
            "soft = hardtanh(x/2) + a*sigmoid(x) - 1; a = lin(0..1)",
            "soft = -log(1 + exp(-x)) * min(1, 2) + relu(x);",
            "soft = sin(pi*clamp(x, -0.5, 0.5)) * sqrt(2.5e-1) + max(cos(x), abs(x)/4)",
            "soft = erf(x/(sqrt(2)*s)) + sqrt(x*x + 1)/x^0/3; s = 2..0.5",
            "soft = max(min(2*x, x/2), max(-1, x - 3)) * (1 + sign(x + 9))",
        ] {
            let e = estimator(text).unwrap();
            check_estimator(&e);
            let again = estimator(e.name()).unwrap();
            assert_eq!(again.name(), e.name());
            for (progress, x) in [(0.0, 0.4), (0.5, -0.7), (1.0, 2.2)] {
                let slope = |e: &dyn super::Estimator| {
                    e.fit(&Elements::from(&[]), progress).unwrap().slope(x)
                };
                assert_eq!(slope(&again), slope(&e), "{text}");
            }
        }
    }

    #[test]
    fn at_a_kink_the_slope_of_the_inside_holds() {
        for (text, x) in [
            ("soft=hardtanh(x)", 1.0),
            ("soft=hardtanh(x)", -1.0),
            ("soft=clamp(x,-1,1)", -1.0),
            ("soft=relu(x)", 0.0),
            ("soft=min(x,1)", 1.0),
            ("soft=min(1,x)", 1.0),
            ("soft=max(0,x)", 0.0),
            ("soft=abs(x)", 0.0),
            ("soft=max(x,x/9)", 0.0),
        ] {
            assert_eq!(estimator(text).unwrap().slope(x), 1.0, "{text} at {x}");
        }
    }

    #[test]
    fn what_lies_beyond_a_limit_does_not_reach_the_slope() {
        let e = estimator("soft = min(exp(20*x), 1)").unwrap();
        assert_eq!((e.soft(100.0), e.slope(100.0)), (1.0, 0.0));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let deep = format!("soft = {}x", "(".repeat(2000));
        for (text, expected) in [
            ("soft = tanh(x", "found the end at position 14, expected \")\""),
            ("soft = x + * 2", "found \"*\" at position 12, expected a number"),
            ("soft = x 2", "found \"2\" at position 10, expected an operator"),
            ("soft = x; t 2", "found \"t\" at position 11, expected a parameter that the"),
            (
                "soft = tahn(x)",
                "found \"tahn\" at position 8, expected a function (did you mean \"tanh\"?",
            ),
            ("soft = tanh x", "found \"x\" at position 13, expected \"(\""),
            ("soft = max(x)", "found \")\" at position 13, expected \",\""),
            ("soft = 3", "slope 0 everywhere on [-10, 10] (0 % into"),
            ("soft = a*x; a = lin(1..-1)", "slope 0 everywhere on [-10, 10] (50 % into"),
            ("soft = log(x)", "no finite value at x = -10"),
            ("soft = sqrt(abs(x))", "no finite slope at x = 0"),
            ("soft = exp(x)^t; t = 1..100", "into training"),
            ("soft = t*x; t = 0..1", "expected ends of one sign, or lin(0..1)"),
            ("soft = t*x; t = much", "found \"much\" at position 17, expected a number"),
            (
                "soft = t*x",
                "found \"t\" at position 8, expected x, pi or a parameter set as \"; t =",
            ),
            ("soft = t*x; x = 2", "found \"x\" at position 13, expected a name that"),
            ("soft = t*x; tanh = 2", "position 13, expected a name that means nothing else"),
            ("soft = weights*x; weights = 2", "expected a name that means nothing else"),
            ("soft = t*x; t = 2; t = 3", "position 20, expected a parameter that is not set"),
            ("soft = 2^x", "found \"x\" at position 10, expected an exponent without x"),
            ("soft = 1.5.5*x", "found \".\" at position 11"),
            ("soft = ü", "found \"ü\" at position 8"),
            ("soft =", "found the end at position 7"),
            (&deep, "2008 bytes, expected at most 1000"),
        ] {
            let message = estimator(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
