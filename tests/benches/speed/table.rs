//! Figures as one aligned table: medians with their spread, and their ratio to a yardstick.

/// One figure. Samples are never empty.
pub struct Row {
    what: String,
    unit: &'static str,
    samples: Vec<f64>,
    yardstick: Option<(String, Vec<f64>)>,
    target: Option<Target>,
}

#[derive(Clone, Copy)]
enum Target {
    AtMost(f64),
    AtLeast(f64),
    RatioAtLeast(f64),
    RatioAtMost(f64),
}

impl Row {
    /// A figure from what was measured, in this unit.
    pub fn new(what: impl Into<String>, unit: &'static str, samples: Vec<f64>) -> Self {
        Self { what: what.into(), unit, samples, yardstick: None, target: None }
    }

    /// Beside something of the same unit that was measured in the same run.
    pub fn against(mut self, what: impl Into<String>, samples: Vec<f64>) -> Self {
        self.yardstick = Some((what.into(), samples));
        self
    }

    /// What is promised of the median.
    pub fn at_most(mut self, target: f64) -> Self {
        self.target = Some(Target::AtMost(target));
        self
    }

    /// What is promised of the median.
    pub fn at_least(mut self, target: f64) -> Self {
        self.target = Some(Target::AtLeast(target));
        self
    }

    /// What is promised of the ratio of the medians.
    pub fn ratio_at_least(mut self, target: f64) -> Self {
        self.target = Some(Target::RatioAtLeast(target));
        self
    }

    /// What is promised of the ratio of the medians.
    pub fn ratio_at_most(mut self, target: f64) -> Self {
        self.target = Some(Target::RatioAtMost(target));
        self
    }

    fn ratio(&self) -> Option<f64> {
        self.yardstick.as_ref().map(|(_, samples)| median(&self.samples) / median(samples))
    }

    /// The target, and whether it is met.
    fn verdict(&self) -> String {
        let Some(target) = self.target else { return String::new() };
        let (value, ratio) = (median(&self.samples), self.ratio().unwrap_or(f64::NAN));
        let (text, met) = match target {
            Target::AtMost(most) => (format!("<= {}", figure(most)), value <= most),
            Target::AtLeast(least) => (format!(">= {}", figure(least)), value >= least),
            Target::RatioAtLeast(least) => (format!("ratio >= {}", figure(least)), ratio >= least),
            Target::RatioAtMost(most) => (format!("ratio <= {}", figure(most)), ratio <= most),
        };
        format!("{text} {}", if met { "met" } else { "MISSED" })
    }

    fn cells(&self) -> [String; COLUMNS] {
        let (yardstick, theirs) = match &self.yardstick {
            Some((what, samples)) => (what.clone(), figure(median(samples))),
            None => (String::new(), String::new()),
        };
        let ratio = self.ratio().map_or(String::new(), |ratio| format!("{ratio:.2}"));
        let (least, most) = spread(&self.samples);
        let spread = format!("{}..{}", figure(least), figure(most));
        [
            self.what.clone(),
            figure(median(&self.samples)),
            self.unit.into(),
            spread,
            yardstick,
            theirs,
            ratio,
            self.verdict(),
        ]
    }
}

const COLUMNS: usize = 8;
const HEADER: [&str; COLUMNS] = ["figure", "median", "unit", "min..max", "yardstick", "median", "ratio", "target"];
/// Which columns hold numbers, and end at the same place.
const NUMBERS: [bool; COLUMNS] = [false, true, false, true, false, true, true, false];

/// The table, without a line's end after its last line.
pub fn render(rows: &[Row]) -> String {
    let lines: Vec<[String; COLUMNS]> =
        std::iter::once(HEADER.map(str::to_owned)).chain(rows.iter().map(Row::cells)).collect();
    let widths: [usize; COLUMNS] =
        std::array::from_fn(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0));
    let line = |cells: &[String; COLUMNS]| {
        let padded = cells.iter().enumerate().map(|(column, cell)| {
            let width = widths[column];
            if NUMBERS[column] { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Of at least one sample; of an even number, the higher of the two in the middle.
pub fn median(samples: &[f64]) -> f64 {
    percentile(samples, 50)
}

/// The sample that so many percent of the others do not exceed.
pub fn percentile(samples: &[f64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

fn spread(samples: &[f64]) -> (f64, f64) {
    (samples.iter().copied().fold(f64::INFINITY, f64::min), samples.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}

/// Three digits are what such figures are worth.
fn figure(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}
