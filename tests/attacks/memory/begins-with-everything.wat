;; Begins with all the memory that can be addressed.
;; expect: not-described out-of-memory

(memory (export "memory") 65536)
