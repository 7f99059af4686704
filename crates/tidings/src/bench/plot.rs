//! Plots latency by percentile, as SVG. The right half shows the slowest 1 %, which an average
//! hides.
//!
//! Written by hand, because a plotting library would be larger than the rest of the verb.

use std::fmt::Write as _;

use super::report::ScenarioReport;

/// Size of the image, and position of the chart in it, in pixels.
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 840.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 420.0;

/// Percentiles with a grid line, one per decade of the remaining share of calls (100 % to 0.01 %).
const GRID: [(&str, f64); 5] = [("0", 0.0), ("90", 90.0), ("99", 99.0), ("99.9", 99.9), ("99.99", 99.99)];
/// Decades from left to right.
const DECADES: f64 = 4.0;
/// Points of a curve per decade.
const POINTS: u32 = 30;
/// Colours of the curves, distinguishable with colour blindness (Okabe and Ito).
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// Draws a curve for each report.
pub(super) fn svg(reports: &[ScenarioReport]) -> String {
    let longest = reports.iter().map(|report| millis(report, 100.0)).fold(0.001, f64::max);
    let scale = Scale::for_longest(longest);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"14\">Latency in ms by percentile, from each call's intended start time\
         </text>\n"
    );
    grid(&mut svg, &scale);
    for (index, report) in reports.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let points: Vec<_> = points().map(|(x, percent)| (x, scale.y(millis(report, percent)))).collect();
        let path = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ");
        let _ = writeln!(svg, r#"<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>"#);
        let y = 20.0 + 16.0 * f64::from(u32::try_from(index).unwrap_or(0)) + TOP;
        let (name, pace) = (report.scenario.name, report.pace());
        let _ = writeln!(svg, r#"<text x="{:.1}" y="{y:.1}" fill="{colour}">{name}, {pace}</text>"#, LEFT + 12.0);
    }
    svg.push_str("</svg>\n");
    svg
}

fn grid(svg: &mut String, scale: &Scale) {
    const STYLE: &str = r##"stroke="#dddddd""##;
    for (name, percent) in GRID {
        let x = x(percent);
        let _ = writeln!(svg, r#"<line x1="{x:.1}" y1="{TOP}" x2="{x:.1}" y2="{BOTTOM}" {STYLE}/>"#);
        let _ = writeln!(svg, r#"<text x="{x:.1}" y="{}" text-anchor="middle">{name} %</text>"#, BOTTOM + 18.0);
    }
    for step in 0..=scale.steps {
        let value = f64::from(step) * scale.step;
        let y = scale.y(value);
        let _ = writeln!(svg, r#"<line x1="{LEFT}" y1="{y:.1}" x2="{RIGHT}" y2="{y:.1}" {STYLE}/>"#);
        let digits = scale.digits;
        let _ =
            writeln!(svg, r#"<text x="{}" y="{:.1}" text-anchor="end">{value:.digits$}</text>"#, LEFT - 8.0, y + 4.0);
    }
}

/// Returns the points of a curve from left to right: x position and percentile.
fn points() -> impl Iterator<Item = (f64, f64)> {
    let end = POINTS * 4; // the decades
    (0..=end).map(|point| {
        let percent = 100.0 - 100.0 / 10f64.powf(f64::from(point) / f64::from(POINTS));
        (x(percent), percent)
    })
}

fn x(percent: f64) -> f64 {
    LEFT + (RIGHT - LEFT) * -(1.0 - percent / 100.0).log10() / DECADES
}

fn millis(report: &ScenarioReport, percent: f64) -> f64 {
    report.tally.latency.percentile(percent).as_secs_f64() * 1000.0
}

/// The vertical scale, from zero to a round number above the longest latency.
struct Scale {
    step: f64,
    steps: u32,
    digits: usize,
}

impl Scale {
    fn for_longest(longest: f64) -> Self {
        let decade = 10f64.powf(longest.log10().floor());
        // Four to ten steps, for any longest latency.
        let step = [0.2, 0.5, 1.0].into_iter().map(|part| part * decade).find(|step| longest / step <= 8.0);
        let step = step.unwrap_or(2.0 * decade);
        let steps = (1..=10).find(|steps| f64::from(*steps) * step >= longest).unwrap_or(10);
        let digits = (0..6).find(|digits| step * 10f64.powi(*digits) >= 1.0).unwrap_or(6);
        Self { step, steps, digits: usize::try_from(digits).unwrap_or(0) }
    }

    fn y(&self, value: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * (value / (f64::from(self.steps) * self.step)).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decades_are_equally_wide() {
        let positions: Vec<_> = GRID.iter().map(|(_, percent)| x(*percent)).collect();

        for pair in positions.windows(2) {
            assert!((pair[1] - pair[0] - (RIGHT - LEFT) / DECADES).abs() < 0.01, "{positions:?}");
        }
    }

    #[test]
    fn the_scale_ends_at_a_round_number_above_the_longest() {
        for longest in [0.001, 0.037, 0.99, 1.0, 1.01, 7.3, 42.0, 999.0, 5_000.0, 12_345.0] {
            let scale = Scale::for_longest(longest);
            let end = f64::from(scale.steps) * scale.step;

            assert!(end >= longest && end <= 2.1 * longest, "{longest} {end}");
            assert!((4..=10).contains(&scale.steps), "{longest}: {} steps", scale.steps);
        }
    }
}
