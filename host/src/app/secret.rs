//! Sealed secrets: set, listed by name, removed. What one holds never comes back out of here.

use super::{App, AppError};
use crate::{
    pipeline::definition::is_name,
    secret::{SealKey, SecretValue},
    store::secrets::SealedSecret,
};

impl App {
    /// Seals a secret under the key and keeps it, in place of an earlier one of the name.
    pub async fn set_secret(&self, name: &str, value: &SecretValue, key: &SealKey) -> Result<(), AppError> {
        if !is_name(name) {
            let rule = "use a-z, 0-9 and _, beginning with a letter";
            return Err(AppError::Usage(format!("`{}` is not a name for a secret; {rule}", name.escape_debug())));
        }
        if let Some(mistake) = value.mistake() {
            return Err(AppError::Usage(format!("the secret `{name}` was not set: {mistake}")));
        }
        let sealed = key.seal(&self.tenant, name, value).map_err(|error| AppError::host("seal a secret", error))?;
        let sealed = SealedSecret { sealed, key_id: key.id() };
        Ok(self.store.put_sealed_secret(&self.tenant, name, &sealed).await?)
    }
}
