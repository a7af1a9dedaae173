"""Jobs on several ranks and hosts: what fails, who is named, and whether they go on."""
