//! When the host sends a request again, and how long it waits before: pure functions.
//!
//! One layer of retries, within one call of the guest: what is not mended here is the job's own retry policy's.

use std::time::{Duration, SystemTime};

use http::HeaderMap;

use crate::limit::{HTTP_RETRY_AFTER_MAX, HTTP_RETRY_WAIT_BASE, HTTP_RETRY_WAIT_MAX};

/// Whether repeating a request by itself changes nothing more than sending it once (RFC 9110, 9.2.2).
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE")
}

/// Whether an answer may be another one later.
pub fn may_pass(status: u16) -> bool {
    // Not implemented and a version that is not supported do not pass.
    status == 429 || (500..600).contains(&status) && !matches!(status, 501 | 505)
}

/// The wait before the next request, after `sent` of them.
///
/// What the answer asks for is kept, up to a cap, and a little more, so that those who were told the same do not all
/// come back at once; otherwise each wait is twice as long as the one before, and a random half of it is left out.
/// `drawn` is any random number.
pub fn wait(sent: u32, asked: Option<Duration>, drawn: u64) -> Duration {
    if let Some(asked) = asked {
        let asked = asked.min(HTTP_RETRY_AFTER_MAX);
        return asked + part(asked.min(HTTP_RETRY_WAIT_MAX) / 10, drawn);
    }
    backoff(sent, HTTP_RETRY_WAIT_BASE, HTTP_RETRY_WAIT_MAX, drawn)
}

fn backoff(sent: u32, base: Duration, cap: Duration, drawn: u64) -> Duration {
    let doubled = base.saturating_mul(1_u32.checked_shl(sent.saturating_sub(1)).unwrap_or(u32::MAX));
    let longest = doubled.min(cap);
    longest / 2 + part(longest / 2, drawn)
}

/// A random part of a duration, up to all of it.
fn part(of: Duration, drawn: u64) -> Duration {
    let nanos = u64::try_from(of.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(drawn % nanos.saturating_add(1).max(1))
}

/// What `retry-after` asks for: seconds, or a date (RFC 9110, 10.2.3).
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    // A date that has passed asks for nothing.
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn scenario_115_waits_double_up_to_the_cap_and_vary() {
        let all = |sent: u32| backoff(sent, MS(50), MS(150), MS(25 << (sent - 1)).min(MS(75)).as_nanos() as u64);
        assert_eq!([all(1), all(2), all(3), all(30)], [MS(50), MS(100), MS(150), MS(150)]);
        let drawn: std::collections::BTreeSet<Duration> =
            (0..50_u64).map(|n| backoff(1, MS(50), MS(150), n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        assert!(drawn.len() > 40 && drawn.iter().all(|wait| (MS(25)..=MS(50)).contains(wait)), "{drawn:?}");
        assert!(backoff(u32::MAX, Duration::MAX, Duration::MAX, u64::MAX) > MS(1));
    }

    #[test]
    fn what_an_answer_asks_for_is_kept_up_to_the_cap() {
        let least = wait(1, Some(MS(1_000)), 0);
        let most = wait(1, Some(MS(1_000)), MS(100).as_nanos() as u64);
        assert_eq!((least, most), (MS(1_000), MS(1_100)));
        assert!(wait(1, Some(Duration::MAX), 0) == HTTP_RETRY_AFTER_MAX);
        assert_eq!(wait(1, Some(Duration::ZERO), 7), Duration::ZERO);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let asked = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", http::HeaderValue::from_static(text));
            retry_after(&headers, now)
        };
        assert_eq!(asked("120"), Some(Duration::from_secs(120)));
        assert_eq!(asked("0"), Some(Duration::ZERO));
        assert_eq!(asked("Sun, 06 Nov 1994 08:50:07 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:07 GMT"), Some(Duration::ZERO));
        assert_eq!(asked("99999999999999999999"), Some(Duration::from_secs(u64::MAX)));
        for nonsense in ["", "-1", "1.5", "soon", "+5"] {
            assert_eq!(asked(nonsense), None, "{nonsense}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn what_cannot_pass_or_must_not_be_repeated_is_told() {
        assert_eq!([200, 301, 400, 404, 501, 505, 600].map(may_pass), [false; 7]);
        assert_eq!([429, 500, 502, 503, 504, 599].map(may_pass), [true; 6]);
        assert_eq!(["GET", "HEAD", "OPTIONS", "PUT", "DELETE"].map(is_idempotent), [true; 5]);
        assert_eq!(["POST", "PATCH"].map(is_idempotent), [false; 2]);
    }
}
