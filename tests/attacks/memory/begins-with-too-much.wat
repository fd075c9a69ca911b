;; Begins with more memory than its asset may have.
;; expect: out-of-memory
;; says: while it was instantiated

(memory (export "memory") 300)
