//! In a native build: HTTP origins that answer what the test says.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use super::memory::with;
use super::{CALL_BYTES_MAX, HostResult, RequestRecord};
use crate::error::CapabilityError;
use crate::testing::Answer;

/// What an origin answers, by request: `GET path?name=value`. The last answer to a request stays.
pub(crate) type Answers = BTreeMap<String, VecDeque<Answer>>;

/// A granted origin, by its name.
pub(crate) struct Client(String);

impl Client {
    pub(crate) fn open(resource_name: &str) -> HostResult<Self> {
        let granted = with(|memory| memory.origins.contains_key(resource_name));
        granted.then(|| Self(resource_name.into())).ok_or(CapabilityError::Denied)
    }

    pub(crate) fn send(&self, request: &RequestRecord) -> HostResult<Response> {
        let line = line_of(request);
        with(|memory| {
            let sent = (self.0.clone(), line.clone(), request.body.clone());
            memory.requests.push(sent);
            let answers = memory.origins.get_mut(&self.0).expect("it was there when the client was opened");
            let answers = answers.get_mut(&line).ok_or(CapabilityError::Denied)?;
            let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
            let answer = answer.ok_or(CapabilityError::Denied)?;
            Ok(Response { answer, at: RefCell::new(0) })
        })
    }
}

/// As a test writes it: not escaped.
fn line_of(request: &RequestRecord) -> String {
    let path = request.path.strip_prefix('/').unwrap_or(&request.path);
    let pairs: Vec<String> = request.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mark = if pairs.is_empty() { "" } else { "?" };
    format!("{} {path}{mark}{}", request.method, pairs.join("&"))
}

/// An answer, read in order.
pub(crate) struct Response {
    answer: Answer,
    at: RefCell<usize>,
}

impl Response {
    pub(crate) fn status(&self) -> u16 {
        self.answer.status
    }

    pub(crate) fn headers(&self) -> Vec<(String, String)> {
        self.answer.headers.clone()
    }

    pub(crate) fn read(&self, max: u32) -> HostResult<Vec<u8>> {
        let mut at = self.at.borrow_mut();
        let rest = &self.answer.body[*at..];
        let chunk = rest[..rest.len().min(max as usize).min(CALL_BYTES_MAX)].to_vec();
        *at += chunk.len();
        Ok(chunk)
    }
}
