//! The station's file as it came: the only asset that reaches outside.

use std::io::{self, BufRead};

use flowstone_sdk::prelude::*;

/// The columns that everything after this counts on.
const HEADER: &str = "date,precipitation,temp_max,temp_min,wind,weather";

/// The station's daily measurements, byte for byte.
#[asset(
    requires(station = files("reads the station's one CSV file")),
    tags(stage = "raw"),
    media_type = "text/csv; charset=utf-8"
)]
fn raw_weather(ctx: &Context) -> Result<()> {
    let station = ctx.directory("station")?;
    let entries = station.entries().collect::<Result<Vec<_>>>()?;
    let entry = match &entries[..] {
        [entry] => entry,
        // The station may be about to send it.
        [] => return Err(Error::retryable("the station has no file yet")),
        [first, second, ..] => {
            let text = format!("one file is expected, but there are `{}` and `{}`", first.path, second.path);
            return Err(Error::permanent(text));
        }
    };

    let mut file = station.reader(&entry.path);
    let first_line = file.fill_buf()?.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let header = String::from_utf8_lossy(first_line);
    if header.trim_end() != HEADER {
        return Err(Error::permanent(format!("`{}` begins with `{header}`, not with `{HEADER}`", entry.path)));
    }
    io::copy(&mut file, &mut ctx.output())?;
    ctx.add_metadata("file", &entry.path)?;
    log::info!(bytes = entry.size, "took {}", entry.path);
    Ok(())
}

#[cfg(test)]
mod tests {
    use flowstone_sdk::testing::{Job, Outcome};

    use super::HEADER;

    fn take<const N: usize>(files: [(&str, String); N]) -> flowstone_sdk::testing::Finished {
        Job::new("raw_weather").directory("station", files).run()
    }

    #[test]
    fn the_file_passes_through_unchanged() {
        let bytes = format!("{HEADER}\r\n2012-01-01,0.0,12.8,5.0,4.7,drizzle\n");
        let finished = take([("2012.csv", bytes.clone())]);
        assert_eq!(finished.text(), bytes);
        assert_eq!(finished.metadata, [("file".into(), "2012.csv".into())]);
    }

    #[test]
    fn a_file_that_is_not_there_yet_is_worth_another_attempt() {
        let outcome = take([]).outcome;
        assert_eq!(outcome, Outcome::Retryable { message: "the station has no file yet".into(), after: None });
    }

    #[test]
    fn another_file_or_other_columns_are_not() {
        let two = take([("a.csv", String::new()), ("b.csv", String::new())]).outcome;
        assert_eq!(two, Outcome::Permanent("one file is expected, but there are `a.csv` and `b.csv`".into()));
        let other = take([("a.csv", "date,rain\n".into())]).outcome;
        assert_eq!(other, Outcome::Permanent(format!("`a.csv` begins with `date,rain`, not with `{HEADER}`")));
    }
}
