/* bcc asks for this file; programs with UAPI contexts need nothing of it. */
