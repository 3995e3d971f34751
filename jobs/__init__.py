"""Job files and the training programs they name; `jobs.lora` is the main one."""
