//! `dirnet lab curves`

use super::output::{Output, table};
use crate::binarize::estimator::{all, estimator};
use crate::files::write_whole;
use crate::lab::{Curve, Distribution, updatable};
use crate::report::{Chart, Ink, Line, Panel, Plot};
use crate::{Error, Estimator};
use clap::Args;
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

/// Draw the soft curve and the slope of estimators as training goes on, or the share of elements that
/// they leave able to learn.
///
/// Without --on: each estimator's soft curve beside the sign, and its slope, at some moments of
/// training. One that looks at the distribution is shown standard normal numbers.
///
/// With --on: for tensors of these distributions, the share of elements whose slope is at least RHO of
/// the largest one over [-2, 2], all through training. Each tensor has 4,096 numbers, the same ones
/// each time: normal (deviation 1), laplace (deviation 1), bimodal (+-1 plus normal noise of
/// deviation 0.1), heavy-tailed (Student's t with 2 degrees of freedom).
///
/// With --json, for each estimator and moment: event ("curve"), estimator, progress, and the lists x,
/// soft and slope. With --on, for each tensor, estimator and moment: event ("share"), estimator,
/// tensor, progress, share (0 to 1).
#[derive(Args, Debug)]
pub(super) struct Curves {
    /// Names such as `dte(eps=0.2)`, or curves such as `soft = tanh(t*x)/t; t = 0.1..10` [default: all
    /// built-in ones; with --on, ede and dte]
    #[arg(value_name = "ESTIMATOR", value_parser = estimator)]
    estimators: Vec<Arc<dyn Estimator>>,
    /// Moments of training, from 0 to 1
    #[arg(long, value_name = "PROGRESS", num_args = 1.., default_values_t = [0.0, 0.5, 1.0], value_parser = progress)]
    at: Vec<f32>,
    /// Shares instead of curves, of tensors like these: normal, laplace, bimodal, heavy-tailed
    #[arg(long, value_name = "DISTRIBUTION", num_args = 1.., conflicts_with = "at", value_parser = Distribution::named)]
    on: Vec<Distribution>,
    /// With --on, how much of the largest slope an element must have to count
    #[arg(long, value_name = "RHO", default_value_t = 0.1, requires = "on", value_parser = share)]
    rho: f32,
    /// Draw them into this file
    #[arg(short, value_name = "FILE.svg", value_parser = picture)]
    out: Option<PathBuf>,
}

fn progress(text: &str) -> Result<f32, String> {
    let found = text.parse().ok().filter(|p| (0.0..=1.0).contains(p));
    found.ok_or_else(|| "expected a number from 0 (the start of training) to 1 (its end)".into())
}

fn share(text: &str) -> Result<f32, String> {
    let found = text.parse().ok().filter(|&rho: &f32| rho > 0.0 && rho <= 1.0);
    found.ok_or_else(|| "expected a number above 0, at most 1".into())
}

fn picture(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension().is_some_and(|e| e.eq_ignore_ascii_case("svg")) {
        true => Ok(path),
        false => Err("expected a name that ends in .svg".into()),
    }
}

#[derive(Serialize)]
struct CurveEvent<'a> {
    event: &'static str,
    #[serde(flatten)]
    curve: &'a Curve,
}

#[derive(Serialize)]
struct ShareEvent<'a> {
    event: &'static str,
    estimator: &'a str,
    tensor: &'static str,
    progress: f32,
    share: f64,
}

impl Curves {
    pub fn run(mut self, out: &Output) -> Result<(), Error> {
        if self.estimators.is_empty() {
            let names = all().map(|entry| entry.name);
            let wanted = |name: &&str| self.on.is_empty() || ["ede", "dte"].contains(name);
            self.estimators = names.filter(wanted).map(estimator).collect::<Result<_, _>>()?;
        }
        let plot = if self.on.is_empty() { self.curves(out) } else { self.shares(out) };
        if let Some(path) = &self.out {
            write_whole(path, |file| file.write_all(plot.svg().as_bytes()))?;
            out.note(&format!("drawn into {}", path.display()));
        }
        Ok(())
    }

    /// A panel an estimator, a line a moment.
    fn curves(&self, out: &Output) -> Plot {
        let last = self.at.len() - 1;
        let shade = |i: usize| Ink::Shade(1.0 - (last - i) as f64 / last.max(1) as f64);
        let mut plot = Plot { legend: vec![("sign".into(), Ink::Guide)], panels: Vec::new() };
        let moments = self.at.iter().enumerate();
        plot.legend.extend(moments.map(|(i, at)| (format!("progress {at}"), shade(i))));
        let mut rows = Vec::new();
        for estimator in &self.estimators {
            let step = [(-2.0, -1.0), (0.0, -1.0), (0.0, 1.0), (2.0, 1.0)];
            let mut soft = vec![Line { ink: Ink::Guide, points: step.to_vec() }];
            let mut slope = Vec::new();
            for (i, &at) in self.at.iter().enumerate() {
                let curve = Curve::of(estimator, at);
                soft.push(line(shade(i), &curve.x, &curve.soft));
                slope.push(line(shade(i), &curve.x, &curve.slope));
                // Plus zero, so that none reads -0.000.
                let shown = [0, 5, 15, 25, 50, 75].map(|step| {
                    let thousandths = (curve.slope[100 + step] * 1e3).round() + 0.0;
                    format!("{:.3}", thousandths / 1e3)
                });
                let words = [curve.estimator.clone(), at.to_string()];
                rows.push(words.into_iter().chain(shown).collect());
                out.object(&CurveEvent { event: "curve", curve: &curve });
            }
            let chart = |y: &str, lines| Chart { x: "x".into(), y: y.into(), lines };
            let charts = vec![chart("soft", soft), chart("slope", slope)];
            plot.panels.push(Panel { title: estimator.name().to_string(), charts });
        }
        let head = ["estimator", "progress", "slope at 0", "0.1", "0.3", "0.5", "1", "1.5"];
        out.line(&table(&head, 1, rows));
        plot
    }

    /// A panel a tensor, a line an estimator.
    fn shares(&self, out: &Output) -> Plot {
        /// Even steps through training.
        const STEPS: usize = 40;
        let names = self.estimators.iter().map(|e| e.name().to_string());
        let legend = names.enumerate().map(|(i, name)| (name, Ink::Hue(i))).collect();
        let mut plot = Plot { legend, panels: Vec::new() };
        let mut rows = Vec::new();
        for tensor in &self.on {
            let elements = tensor.elements();
            let mut lines = Vec::new();
            for (i, estimator) in self.estimators.iter().enumerate() {
                let moments = (0..=STEPS).map(|step| {
                    let progress = step as f32 / STEPS as f32;
                    (progress, updatable(estimator, &elements, progress, self.rho))
                });
                let moments: Vec<(f32, f64)> = moments.collect();
                for &(progress, share) in &moments {
                    let (estimator, tensor) = (estimator.name(), tensor.name);
                    let event = "share";
                    out.object(&ShareEvent { event, estimator, tensor, progress, share });
                }
                let percent = moments.iter().map(|&(p, share)| (f64::from(p), 100.0 * share));
                let points: Vec<(f64, f64)> = percent.collect();
                let shown = points.iter().step_by(STEPS / 4).map(|p| format!("{:.1}", p.1));
                let words = [tensor.name.to_string(), estimator.name().to_string()];
                rows.push(words.into_iter().chain(shown).collect());
                lines.push(Line { ink: Ink::Hue(i), points });
            }
            let chart = Chart { x: "progress".into(), y: "% of elements learn".into(), lines };
            plot.panels.push(Panel { title: tensor.name.to_string(), charts: vec![chart] });
        }
        let head = ["tensor", "estimator", "% learn at 0", "0.25", "0.5", "0.75", "1"];
        out.line(&table(&head, 2, rows));
        plot
    }
}

fn line(ink: Ink, x: &[f32], y: &[f32]) -> Line {
    let points = x.iter().zip(y).map(|(&x, &y)| (f64::from(x), f64::from(y)));
    Line { ink, points: points.collect() }
}
