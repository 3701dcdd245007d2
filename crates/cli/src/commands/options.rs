//! `options`: the flags of every command.

use clap::CommandFactory as _;

use crate::arguments::Kubectl;
use crate::failure::Result;
use crate::session::Session;

/// Prints them.
pub(crate) fn run(session: &Session) -> Result {
    let mut text = "The following options can be passed to any command:\n".to_owned();
    for arg in Kubectl::command().get_arguments().filter(|arg| arg.is_global_set()) {
        let short = arg.get_short().map_or(String::new(), |short| format!("-{short}, "));
        let Some(long) = arg.get_long() else { continue };
        let default = match arg.get_action() {
            clap::ArgAction::SetTrue => "false".to_owned(),
            clap::ArgAction::Append => "[]".to_owned(),
            _ => {
                let default = arg.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
                format!("'{}'", default.unwrap_or_default())
            }
        };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        text.push_str(&format!("\n    {short}--{long}={default}:\n\t{help}\n"));
    }
    session.out(&text)
}
