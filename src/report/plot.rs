//! Pictures of small charts: panels in a grid, one legend for all. SVG with the reader's own
//! fonts, so nothing is loaded and nothing is asked of the system.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// A grid of panels under a legend that holds for all of them.
///
/// ```
/// use dirnet::report::{Chart, Ink, Line, Panel, Plot};
/// let line = Line { ink: Ink::Hue(0), points: vec![(0.0, 0.0), (1.0, 2.0)] };
/// let chart = Chart { x: "time".into(), y: "way".into(), lines: vec![line] };
/// let panel = Panel { title: "a walk".into(), charts: vec![chart] };
/// let svg = Plot { legend: vec![("first".into(), Ink::Hue(0))], panels: vec![panel] }.svg();
/// assert!(svg.starts_with("<svg") && svg.contains("a walk") && svg.contains("first"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Plot {
    /// What each ink stands for.
    pub legend: Vec<(String, Ink)>,
    /// Row by row, at most three in a row.
    pub panels: Vec<Panel>,
}

/// Charts side by side under one title.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What it shows; cut where it is too long.
    pub title: String,
    /// From left to right.
    pub charts: Vec<Chart>,
}

/// Some lines over one pair of axes, which reach as far as the lines do.
#[derive(Clone, Debug)]
pub struct Chart {
    /// What goes to the right.
    pub x: String,
    /// What goes up.
    pub y: String,
    /// Later ones lie over earlier ones, and are thinner, so that both are seen.
    pub lines: Vec<Line>,
}

/// A line through some points.
#[derive(Clone, Debug)]
pub struct Line {
    /// How it is drawn.
    pub ink: Ink,
    /// From left to right; those that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ink {
    /// Thin and grey: what the others are seen against.
    Guide,
    /// A step of one colour, from 0 (light) to 1 (dark).
    Shade(f64),
    /// A colour of its own; seven, told apart by colour-blind eyes too, then again from the first.
    Hue(usize),
}

/// The backend knows whole pixels only, so it draws at twice the size that is shown.
const FINE: u32 = 2;
const PANEL: (u32, u32) = (640, 360);
const TEXT: u32 = 22;
const ROW: u32 = 2 * TEXT;
/// Between the inks of a legend.
const GAP: u32 = TEXT;
const SAMPLE: u32 = 3 * TEXT;
/// Left of a chart, for its numbers.
const AXIS: u32 = 3 * TEXT;

impl Ink {
    fn colour(self) -> RGBColor {
        match self {
            Ink::Guide => RGBColor(150, 150, 150),
            Ink::Shade(dark) => {
                let mix =
                    |light: f64, deep: f64| (light + dark.clamp(0.0, 1.0) * (deep - light)) as u8;
                RGBColor(mix(158.0, 8.0), mix(202.0, 38.0), mix(235.0, 90.0))
            }
            Ink::Hue(i) => {
                // Okabe and Ito, 2008, but for the yellow, which is pale on white.
                const HUES: [RGBColor; 7] = [
                    RGBColor(0, 114, 178),
                    RGBColor(213, 94, 0),
                    RGBColor(0, 158, 115),
                    RGBColor(204, 121, 167),
                    RGBColor(230, 159, 0),
                    RGBColor(86, 180, 233),
                    RGBColor(0, 0, 0),
                ];
                HUES[i % HUES.len()]
            }
        }
    }

    /// `above` is the share of the other lines that lie over it.
    fn style(self, above: f64) -> ShapeStyle {
        let width = if self == Ink::Guide { 2 } else { 3 + (4.0 * above).round() as u32 };
        self.colour().stroke_width(width)
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<T> = Result<T, DrawingAreaErrorKind<std::io::Error>>;

impl Plot {
    /// The picture as the text of an SVG file.
    pub fn svg(&self) -> String {
        let columns = (1..3).find(|n| n * n >= self.panels.len()).unwrap_or(3);
        let rows = self.panels.len().div_ceil(columns);
        let width = columns as u32 * PANEL.0;
        let (legend, places) = self.legend_places(width);
        let height = legend + rows as u32 * PANEL.1;
        let mut svg = String::new();
        let draw = || -> Drawn<()> {
            let root = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
            root.fill(&WHITE)?;
            for ((name, ink), at) in self.legend.iter().zip(places) {
                draw_legend(&root, name, *ink, at, width)?;
            }
            let (_, panels) = root.split_vertically(legend);
            for (panel, area) in self.panels.iter().zip(panels.split_evenly((rows, columns))) {
                panel.draw(&area)?;
            }
            root.present()
        };
        draw().expect("a string takes all that is drawn");
        let size = |by: u32| format!("width=\"{}\" height=\"{}\"", width / by, height / by);
        svg.replacen(&size(1), &size(FINE), 1)
    }

    /// How high the legend is, and where each ink of it begins.
    fn legend_places(&self, width: u32) -> (u32, Vec<(u32, u32)>) {
        let (mut x, mut y) = (GAP, TEXT / 2);
        let mut places = Vec::new();
        for (name, _) in &self.legend {
            let wide = SAMPLE + GAP + text_width(name);
            if x > GAP && x + wide > width {
                (x, y) = (GAP, y + ROW);
            }
            places.push((x, y));
            x += wide + GAP;
        }
        (if places.is_empty() { 0 } else { y + ROW }, places)
    }
}

fn draw_legend(root: &Area<'_>, name: &str, ink: Ink, at: (u32, u32), width: u32) -> Drawn<()> {
    let (x, y) = (at.0 as i32, (at.1 + TEXT / 2) as i32);
    let end = x + SAMPLE as i32;
    root.draw(&PathElement::new(vec![(x, y), (end, y)], ink.style(0.0)))?;
    let room = width.saturating_sub(at.0 + SAMPLE + GAP);
    root.draw_text(&cut(name, room), &left(), (end + GAP as i32 / 2, at.1 as i32))
}

impl Panel {
    fn draw(&self, area: &Area<'_>) -> Drawn<()> {
        let (title, charts) = area.split_vertically(TEXT + TEXT / 2);
        title.draw_text(&cut(&self.title, PANEL.0 - 2 * GAP), &bold(), (GAP as i32, 0))?;
        let areas = charts.split_evenly((1, self.charts.len().max(1)));
        self.charts.iter().zip(&areas).try_for_each(|(chart, area)| chart.draw(area))
    }
}

impl Chart {
    fn draw(&self, area: &Area<'_>) -> Drawn<()> {
        let points = || self.lines.iter().flat_map(|l| &l.points).filter(|p| finite(p));
        let (left_end, right_end) = reach(points().map(|p| p.0));
        let (lowest, highest) = reach(points().map(|p| p.1).chain([0.0]));
        let air = 0.05 * (highest - lowest);
        let below = if lowest < 0.0 { lowest - air } else { lowest };
        let above = if highest > 0.0 { highest + air } else { highest };
        let mut chart = ChartBuilder::on(area)
            .margin_right(GAP)
            .margin_bottom(TEXT + TEXT / 2)
            .x_label_area_size(TEXT + TEXT / 2)
            .y_label_area_size(AXIS)
            .margin_top(TEXT + TEXT / 2)
            .build_cartesian_2d(left_end..right_end, below..above)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(225, 225, 225))
            .axis_style(RGBColor(120, 120, 120))
            .label_style(left())
            .x_labels(5)
            .y_labels(5)
            .x_label_formatter(&|v| number(*v))
            .y_label_formatter(&|v| number(*v))
            .draw()?;
        let last = self.lines.len().saturating_sub(1);
        for (i, line) in self.lines.iter().enumerate() {
            let points = line.points.iter().copied().filter(finite);
            let style = line.ink.style((last - i) as f64 / last.max(1) as f64);
            chart.draw_series(LineSeries::new(points, style))?;
        }
        let (width, height) = area.dim_in_pixel();
        area.draw_text(&self.y, &left(), (AXIS as i32, 0))?;
        let middle = (AXIS + width - GAP) as i32 / 2;
        area.draw_text(&self.x, &centred(), (middle, (height - TEXT - TEXT / 2) as i32))
    }
}

fn finite(p: &(f64, f64)) -> bool {
    p.0.is_finite() && p.1.is_finite()
}

/// The least and the largest; one further where they are the same.
fn reach(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let none = (f64::INFINITY, f64::NEG_INFINITY);
    let (low, high) = values.fold(none, |(low, high), v| (low.min(v), high.max(v)));
    match () {
        () if low < high => (low, high),
        () if low == high => (low, low + 1.0),
        () => (0.0, 1.0),
    }
}

/// As short as it can be said.
fn number(v: f64) -> String {
    format!("{}", (v * 1e6).round() / 1e6)
}

/// The backend draws text smaller than it is told.
fn left() -> TextStyle<'static> {
    ("sans-serif", f64::from(TEXT) * 1.24).into_font().color(&BLACK)
}

fn centred() -> TextStyle<'static> {
    left().pos(Pos::new(HPos::Center, VPos::Top))
}

fn bold() -> TextStyle<'static> {
    TextStyle { font: left().font.style(FontStyle::Bold), ..left() }
}

/// About as much as a usual font takes.
fn text_width(text: &str) -> u32 {
    text.chars().count() as u32 * TEXT * 3 / 5
}

/// As much of it as there is room for.
fn cut(text: &str, room: u32) -> String {
    let fits = (room / (TEXT * 3 / 5)) as usize;
    if text.chars().count() <= fits {
        return text.to_string();
    }
    let kept: String = text.chars().take(fits.saturating_sub(1)).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(f64, f64)>) -> String {
        let chart = Chart {
            x: "time".into(),
            y: "way".into(),
            lines: vec![Line { ink: Ink::Guide, points }],
        };
        let panel = Panel { title: "<a> & \"b\"".into(), charts: vec![chart.clone(), chart] };
        Plot { legend: vec![("way".into(), Ink::Guide)], panels: vec![panel; 5] }.svg()
    }

    /// Also where there is nothing to draw, or nothing that can be.
    #[test]
    fn each_panel_has_its_title_charts_and_lines() {
        for (points, lines) in [
            (vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, 4.0)], 10),
            (vec![(0.0, 3.0), (0.0, 3.0)], 10),
            (vec![], 0),
            (vec![(f64::INFINITY, 1.0)], 0),
        ] {
            let svg = plot(points.clone());
            let count = |what: &str| svg.matches(what).count();
            assert_eq!(count("&lt;a&gt; &amp; &quot;b&quot;"), 5, "{points:?}");
            assert_eq!((count("\ntime\n") + count(">\ntime"), count("NaN")), (20, 0), "{points:?}");
            let colour = "stroke=\"#969696\" stroke-width=\"2\" points=";
            assert!(count(colour) > lines, "{points:?}: {}", count(colour));
            assert!(svg.contains("viewBox=\"0 0 1920 775\"") && svg.contains("width=\"960\""));
        }
    }

    #[test]
    fn what_is_too_long_is_cut() {
        assert_eq!(cut("a short one", 1000), "a short one");
        assert_eq!(cut("ä long one that goes on", 6 * TEXT), "ä long on…".to_string());
        assert_eq!((number(0.1 + 0.2), number(-2.0)), ("0.3".into(), "-2".into()));
    }
}
