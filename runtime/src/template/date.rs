//! `strftime_now` of chat templates: a date and time in UTC, as Python writes it.

use std::time::{SystemTime, UNIX_EPOCH};

use super::jinja::fault::Result;
use super::jinja::value::TextBuilder;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Writes `time` as Python's `datetime.strftime` does on Linux, in the C locale, for a time without a zone.
/// Directives that are not known stand as they are.
pub(super) fn format(time: SystemTime, format: &str, out: &mut TextBuilder) -> Result<()> {
    let (seconds, micros) = match time.duration_since(UNIX_EPOCH) {
        Ok(since) => (since.as_secs() as i64, since.subsec_micros()),
        Err(before) => (-(before.duration().as_secs() as i64), 0),
    };
    let date = Date::new(seconds, micros);
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push(&rest[..at])?;
        let directive = &rest[at..];
        let length = date.write_directive(directive, out)?;
        rest = &directive[length..];
    }
    out.push(rest)
}

/// A moment in UTC.
struct Date {
    seconds: i64,
    micros: u32,
    year: i64,
    month: i64,
    day: i64,
    /// From 0, Sunday.
    weekday: i64,
    /// From 1.
    day_of_year: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

/// How a part of a date is filled up.
#[derive(Clone, Copy)]
struct Fill {
    flag: Option<char>,
    width: Option<usize>,
}

impl Date {
    fn new(seconds: i64, micros: u32) -> Date {
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = civil(days);
        Date {
            seconds,
            micros,
            year,
            month,
            day,
            weekday: (days + 4).rem_euclid(7),
            day_of_year: days - days_from_civil(year, 1, 1) + 1,
            hour: second / 3600,
            minute: second / 60 % 60,
            second: second % 60,
        }
    }

    /// Writes the directive that a text begins with; gives its length.
    fn write_directive(&self, text: &str, out: &mut TextBuilder) -> Result<usize> {
        let mut at = 1;
        let mut fill = Fill { flag: None, width: None };
        // GNU's flags: no fill, blanks, zeros, capitals, the other case.
        while let Some(flag) = text[at..].chars().next().filter(|c| "-_0^#".contains(*c)) {
            fill.flag = Some(flag);
            at += 1;
        }
        let digits = text[at..].find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len() - at);
        if digits > 0 {
            // What does not fit a number is too wide in any case.
            fill.width = Some(text[at..at + digits].parse().unwrap_or(usize::MAX));
            at += digits;
        }
        let Some(directive) = text[at..].chars().next() else {
            out.push(text)?;
            return Ok(text.len());
        };
        let length = at + directive.len_utf8();
        if !self.write(directive, fill, out)? {
            out.push(&text[..length])?;
        }
        Ok(length)
    }

    /// Writes one directive; `false` if it is not known.
    fn write(&self, directive: char, fill: Fill, out: &mut TextBuilder) -> Result<bool> {
        let hour12 = (self.hour + 11) % 12 + 1;
        let (iso_year, iso_week) = self.iso_week();
        let number =
            |value: i64, width: usize, blank: bool, out: &mut TextBuilder| fill.number(value, width, blank, out);
        match directive {
            'Y' => number(self.year, 1, false, out)?,
            'C' => number(self.year.div_euclid(100), 2, false, out)?,
            'y' => number(self.year.rem_euclid(100), 2, false, out)?,
            'G' => number(iso_year, 1, false, out)?,
            'g' => number(iso_year.rem_euclid(100), 2, false, out)?,
            'm' => number(self.month, 2, false, out)?,
            'd' => number(self.day, 2, false, out)?,
            'e' => number(self.day, 2, true, out)?,
            'H' => number(self.hour, 2, false, out)?,
            'k' => number(self.hour, 2, true, out)?,
            'I' => number(hour12, 2, false, out)?,
            'l' => number(hour12, 2, true, out)?,
            'M' => number(self.minute, 2, false, out)?,
            'S' => number(self.second, 2, false, out)?,
            's' => number(self.seconds, 1, false, out)?,
            'j' => number(self.day_of_year, 3, false, out)?,
            'u' => number((self.weekday + 6) % 7 + 1, 1, false, out)?,
            'w' => number(self.weekday, 1, false, out)?,
            'U' => number((self.day_of_year + 6 - self.weekday) / 7, 2, false, out)?,
            'W' => number((self.day_of_year + 6 - (self.weekday + 6) % 7) / 7, 2, false, out)?,
            'V' => number(iso_week, 2, false, out)?,
            'f' => out.push(&format!("{:06}", self.micros))?,
            'B' => fill.text(MONTHS[self.month as usize - 1], out)?,
            'b' | 'h' => fill.text(&MONTHS[self.month as usize - 1][..3], out)?,
            'A' => fill.text(DAYS[self.weekday as usize], out)?,
            'a' => fill.text(&DAYS[self.weekday as usize][..3], out)?,
            'p' => fill.text(
                match (self.hour < 12, fill.flag) {
                    (true, Some('#')) => "am",
                    (false, Some('#')) => "pm",
                    (true, _) => "AM",
                    (false, _) => "PM",
                },
                out,
            )?,
            'P' => fill.text(if self.hour < 12 { "am" } else { "pm" }, out)?,
            'D' | 'x' => self.write_all("%m/%d/%y", fill, out)?,
            'F' => self.write_all("%Y-%m-%d", fill, out)?,
            'T' | 'X' => self.write_all("%H:%M:%S", fill, out)?,
            'R' => self.write_all("%H:%M", fill, out)?,
            'r' => self.write_all("%I:%M:%S %p", fill, out)?,
            'c' => self.write_all("%a %b %e %H:%M:%S %Y", fill, out)?,
            // A time without a zone has nothing to say.
            'z' | 'Z' => {}
            'n' => fill.text("\n", out)?,
            't' => fill.text("\t", out)?,
            '%' => fill.text("%", out)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Writes several directives as one text, at most seven.
    fn write_all(&self, format: &str, fill: Fill, out: &mut TextBuilder) -> Result<()> {
        let mut text = String::new();
        let mut letters = format.chars();
        while let Some(letter) = letters.next() {
            let two = |value: i64| format!("{value:02}");
            match if letter == '%' { letters.next() } else { None } {
                None => text.push(letter),
                Some('Y') => text += &self.year.to_string(),
                Some('y') => text += &two(self.year.rem_euclid(100)),
                Some('m') => text += &two(self.month),
                Some('d') => text += &two(self.day),
                Some('e') => text += &format!("{:2}", self.day),
                Some('H') => text += &two(self.hour),
                Some('I') => text += &two((self.hour + 11) % 12 + 1),
                Some('M') => text += &two(self.minute),
                Some('S') => text += &two(self.second),
                Some('a') => text += &DAYS[self.weekday as usize][..3],
                Some('b') => text += &MONTHS[self.month as usize - 1][..3],
                Some(_) => text += if self.hour < 12 { "AM" } else { "PM" },
            }
        }
        fill.text(&text, out)
    }

    /// Year and week of ISO 8601: weeks begin on Monday, and the first has the year's first Thursday.
    fn iso_week(&self) -> (i64, i64) {
        let monday_based = (self.weekday + 6) % 7;
        // The Thursday of this week decides.
        let thursday = self.seconds.div_euclid(86_400) - monday_based + 3;
        let (year, _, _) = civil(thursday);
        (year, (thursday - days_from_civil(year, 1, 1)) / 7 + 1)
    }
}

impl Fill {
    fn number(self, value: i64, width: usize, blank: bool, out: &mut TextBuilder) -> Result<()> {
        let with = match self.flag {
            Some('-') => "",
            Some('_') => " ",
            Some('0') => "0",
            _ if blank => " ",
            _ => "0",
        };
        let digits = value.to_string();
        let width = self.width.unwrap_or(if with.is_empty() { 0 } else { width });
        out.repeat(if with.is_empty() { "0" } else { with }, width.saturating_sub(digits.len()))?;
        out.push(&digits)
    }

    fn text(self, text: &str, out: &mut TextBuilder) -> Result<()> {
        let with = if self.flag == Some('0') { "0" } else { " " };
        out.repeat(with, self.width.unwrap_or(0).saturating_sub(text.len()))?;
        match self.flag {
            Some('^') => out.push(&text.to_uppercase()),
            Some('#') if !text.ends_with('m') => out.push(&text.to_uppercase()),
            _ => out.push(text),
        }
    }
}

/// Year, month and day of the days since 1970-01-01, in the proleptic Gregorian calendar
/// (Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

/// The inverse of [`civil`].
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn formatted(seconds: u64, pattern: &str) -> String {
        let mut out = TextBuilder::new(&Default::default()).unwrap();
        format(UNIX_EPOCH + Duration::from_secs(seconds), pattern, &mut out).unwrap();
        out.into_string()
    }

    #[test]
    fn dates() {
        for (seconds, pattern, expected) in [
            (0, "%Y-%m-%d %H:%M:%S", "1970-01-01 00:00:00"),
            (1_709_164_800, "%d %b %Y", "29 Feb 2024"),
            (1_709_164_800, "%A, %B %-d, %Y (day %j)", "Thursday, February 29, 2024 (day 060)"),
            (1_735_689_599, "%F %T %a %y%% %I %p", "2024-12-31 23:59:59 Tue 24% 11 PM"),
            (951_782_400, "%e.%-m.", "29.2."),
            (1_735_689_599, "%G-W%V-%u %U %W %C %D %R %f", "2025-W01-2 52 53 20 12/31/24 23:59 000000"),
            (1_709_164_800, "[%Z%z] %Q 100%", "[] %Q 100%"),
            (1_709_164_800, "%5d %_3m %^a %c", "00029   2 THU Thu Feb 29 00:00:00 2024"),
        ] {
            assert_eq!(formatted(seconds, pattern), expected);
        }
    }

    #[test]
    fn widths_are_counted() {
        for pattern in ["%1000000000Y", "%99999999999999999999d", "%999999999B", "%999999999F"] {
            let mut out = TextBuilder::new(&Default::default()).unwrap();
            assert!(format(UNIX_EPOCH, pattern, &mut out).is_err(), "{pattern}");
        }
    }

    #[test]
    fn days_and_dates_are_inverse() {
        for days in (-800_000..800_000).step_by(37) {
            let (year, month, day) = civil(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }
}
